// /anthropic/v1/messages: bodies in, bodies and events out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/core/api_request.h"
#include "gateway/core/messages_response.h"

namespace expertmesh::gateway {
namespace {

using testing::ElementsAre;

std::string Body(const std::string& more) {
  return R"({"model":"m","max_tokens":5,"messages":[{"role":"user","content":"u"}])" + more + "}";
}

ApiError Bad(const std::string& body) {
  const ParsedRequest parsed = ParseMessagesRequest(body);
  const auto* error = std::get_if<ApiError>(&parsed);
  EXPECT_NE(error, nullptr) << body;
  return error == nullptr ? ApiError{} : *error;
}

ApiRequest Good(const std::string& body, bool counting = false) {
  ParsedRequest parsed = ParseMessagesRequest(body, counting);
  const auto* error = std::get_if<ApiError>(&parsed);
  EXPECT_EQ(error, nullptr) << (error == nullptr ? "" : error->message);
  return error == nullptr ? std::get<ApiRequest>(std::move(parsed)) : ApiRequest{};
}

TEST(MessagesRequest, Fields) {
  const ApiRequest request = Good(Body(
      R"(,"system":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"temperature":0.5,
      "top_p":0.9,"top_k":3,"stream":true,"stop_sequences":["x","y"],
      "thinking":{"type":"enabled","budget_tokens":100},"metadata":{"user_id":"z"},
      "tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],
      "tool_choice":{"type":"auto","disable_parallel_tool_use":true})"));
  ASSERT_EQ(request.messages.size(), 2u);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[0].content, "ab");
  EXPECT_EQ(request.max_tokens, 5u);
  EXPECT_FLOAT_EQ(request.temperature, 0.5f);
  EXPECT_FLOAT_EQ(request.top_p, 0.9f);
  EXPECT_EQ(request.top_k, 3u);
  EXPECT_TRUE(request.stream && request.thinking);
  EXPECT_FALSE(request.parallel_calls);
  EXPECT_THAT(request.stop, ElementsAre("x", "y"));
  EXPECT_THAT(
      request.tools,
      ElementsAre(R"({"name": "f", "description": "d", "parameters": {"type": "object"}})"));
}

TEST(MessagesRequest, BlocksBecomeMessages) {
  const ApiRequest request = Good(R"({"model":"m","max_tokens":1,"messages":[
      {"role":"user","content":"u"},
      {"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},
        {"type":"text","text":"a"},{"type":"tool_use","id":"1","name":"f","input":{"k":[1]}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"1",
        "content":[{"type":"text","text":"r"}]},{"type":"text","text":"next"}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"2"}]},
      {"role":"assistant","content":"begin"}]})");
  ASSERT_EQ(request.messages.size(), 6u);
  EXPECT_EQ(request.messages[1].reasoning, "t");
  EXPECT_EQ(request.messages[1].content, "a");
  EXPECT_EQ(request.messages[1].tool_calls[0].arguments, R"({"k": [1]})");
  EXPECT_EQ(request.messages[2].role, "tool");
  EXPECT_EQ(request.messages[2].content, "r");
  EXPECT_EQ(request.messages[3].content, "next");
  EXPECT_EQ(request.messages[4].tool_call_id, "2");
  EXPECT_TRUE(request.prefix);
}

TEST(MessagesRequest, WhatCannotBeHonouredIsNamed) {
  for (const auto& [more, param] : std::vector<std::pair<std::string, std::string>>{
           {R"(,"frobnicate":1)", "frobnicate"},
           {R"(,"temperature":3)", "temperature"},
           {R"(,"tools":[{"type":"bash_20250124","name":"bash"}])", "tools[0].type"},
           {R"(,"tools":[{"name":"f g"}])", "tools[0].name"},
           {R"(,"tool_choice":{"type":"any"})", "tool_choice"},
           {R"(,"stop_sequences":[""])", "stop_sequences[0]"},
           {R"(,"thinking":{"type":"x"})", "thinking"},
           {R"(,"output_config":{"format":{}})", "output_config.format.type"},
           {R"(,"system":[{"type":"image"}])", "system[0]"}}) {
    const ApiError error = Bad(Body(more));
    EXPECT_EQ(error.http_status, 400) << more;
    EXPECT_EQ(error.param, param) << more;
  }
  const std::string no_limit = R"({"model":"m","messages":[{"role":"user","content":"u"}]})";
  EXPECT_EQ(Bad(no_limit).param, "max_tokens");
  EXPECT_EQ(Good(no_limit, true).max_tokens, 0u);
  EXPECT_EQ(Bad(R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":[
                 {"type":"image","source":{}}]}]})")
                .param,
            "messages[0].content[0].type");
}

const Usage kUsage{.prompt_tokens = 10, .completion_tokens = 3, .cached_tokens = 4};
constexpr char kUsageJson[] = R"({"input_tokens":6,"cache_creation_input_tokens":0,)"
                              R"("cache_read_input_tokens":4,"output_tokens":3})";

TEST(MessagesResponse, WholeWithReasoningAndCall) {
  MessagesFormat format("msg_1", "m");
  const WholeChoice choice{{.reasoning = "r",
                            .content = "c",
                            .calls = {{"call_1", "f", R"({"a":1})"}, {"call_2", "g", "no"}}},
                           Ending::kToolCalls,
                           ""};
  EXPECT_EQ(format.Whole({choice}, kUsage),
            std::string(R"({"id":"msg_1","type":"message","role":"assistant","model":"m",)"
                        R"("content":[{"type":"thinking","thinking":"r","signature":""},)"
                        R"({"type":"text","text":"c"},)"
                        R"({"type":"tool_use","id":"call_1","name":"f","input":{"a":1}},)"
                        R"({"type":"tool_use","id":"call_2","name":"g",)"
                        R"("input":{"arguments":"no"}}],)"
                        R"("stop_reason":"tool_use","stop_sequence":null,"usage":)") +
                kUsageJson + "}");
}

TEST(MessagesResponse, Stream) {
  MessagesFormat format("msg_1", "m");
  std::string out = format.Begin({.prompt_tokens = 10, .cached_tokens = 4});
  out += format.Delta(0, {.reasoning = "r"}, 0);
  out += format.Delta(0, {.content = "c"}, 0);
  out += format.Delta(0, {.content = "d", .calls = {{"call_1", "f", "{}"}}}, 0);
  out += format.EndChoice(0, {{}, Ending::kStopString, "X"}, kUsage);
  out += format.End(kUsage);
  const auto event = [](const std::string& type, const std::string& rest) {
    return "event: " + type + "\ndata: {\"type\":\"" + type + "\"" + rest + "}\n\n";
  };
  std::string expected = event(
      "message_start",
      R"(,"message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],)"
      R"("stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":6,)"
      R"("cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":0}})");
  const auto start = [&](int index, const std::string& block) {
    expected += event("content_block_start",
                      ",\"index\":" + std::to_string(index) + ",\"content_block\":" + block);
  };
  const auto delta = [&](int index, const std::string& text) {
    expected +=
        event("content_block_delta", ",\"index\":" + std::to_string(index) + ",\"delta\":" + text);
  };
  const auto stop = [&](int index) {
    expected += event("content_block_stop", ",\"index\":" + std::to_string(index));
  };
  start(0, R"({"type":"thinking","thinking":"","signature":""})");
  delta(0, R"({"type":"thinking_delta","thinking":"r"})");
  stop(0);
  start(1, R"({"type":"text","text":""})");
  delta(1, R"({"type":"text_delta","text":"c"})");
  delta(1, R"({"type":"text_delta","text":"d"})");
  stop(1);
  start(2, R"({"type":"tool_use","id":"call_1","name":"f","input":{}})");
  delta(2, R"({"type":"input_json_delta","partial_json":"{}"})");
  stop(2);
  expected += event("message_delta",
                    std::string(R"(,"delta":{"stop_reason":"stop_sequence","stop_sequence":"X"},)"
                                R"("usage":)") +
                        kUsageJson);
  expected += event("message_stop", "");
  EXPECT_EQ(out, expected);
}

TEST(MessagesResponse, Errors) {
  EXPECT_EQ(MessagesErrorBody(BadField("x", "is wrong")),
            R"({"type":"error","error":{"type":"invalid_request_error","message":"x is wrong"}})");
  for (const auto& [status, type] : {std::pair{404, "not_found_error"},
                                     {429, "rate_limit_error"},
                                     {503, "overloaded_error"},
                                     {504, "timeout_error"},
                                     {500, "api_error"}}) {
    EXPECT_NE(MessagesErrorBody({.http_status = status}).find(type), std::string::npos);
  }
}

}  // namespace
}  // namespace expertmesh::gateway
