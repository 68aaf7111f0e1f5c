// /v1/responses: bodies in, bodies and events out.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "gateway/core/api_request.h"
#include "gateway/core/responses_response.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

ApiError Bad(const std::string& more) {
  const ParsedRequest parsed = ParseResponsesRequest(R"({"model":"m",)" + more + "}");
  const auto* error = std::get_if<ApiError>(&parsed);
  EXPECT_NE(error, nullptr) << more;
  return error == nullptr ? ApiError{} : *error;
}

ApiRequest Good(const std::string& more) {
  ParsedRequest parsed = ParseResponsesRequest(R"({"model":"m",)" + more + "}");
  const auto* error = std::get_if<ApiError>(&parsed);
  EXPECT_EQ(error, nullptr) << (error == nullptr ? "" : error->message);
  return error == nullptr ? std::get<ApiRequest>(std::move(parsed)) : ApiRequest{};
}

TEST(ResponsesRequest, AStringAndItsSettings) {
  const ApiRequest request =
      Good(R"("input":"hi","instructions":"be brief","max_output_tokens":7,"temperature":0,
           "top_p":0.5,"stream":true,"parallel_tool_calls":false,"reasoning":{"effort":"high"},
           "text":{"format":{"type":"text"},"verbosity":"low"},"store":false,"include":[],
           "tools":[{"type":"function","name":"f","parameters":{}}],"tool_choice":"none",
           "metadata":{"a":"b"},"truncation":"auto")");
  ASSERT_EQ(request.messages.size(), 2u);
  EXPECT_EQ(request.messages[0].content, "be brief");
  EXPECT_EQ(request.messages[1].content, "hi");
  EXPECT_EQ(request.max_tokens, 7u);
  EXPECT_FLOAT_EQ(request.top_p, 0.5f);
  EXPECT_TRUE(request.stream);
  EXPECT_FALSE(request.parallel_calls);
  EXPECT_EQ(request.reasoning_effort, "high");
  EXPECT_EQ(request.tool_choice, ToolChoice::kNone);
  ASSERT_EQ(request.tools.size(), 1u);
  EXPECT_EQ(request.tools[0], R"({"name": "f", "parameters": {}})");
}

TEST(ResponsesRequest, ItemsBecomeMessages) {
  const ApiRequest request = Good(R"("input":[
      {"role":"developer","content":"d"},
      {"type":"message","role":"user","content":[{"type":"input_text","text":"u"}]},
      {"type":"reasoning","id":"rs_1","summary":[]},
      {"type":"message","role":"assistant","content":[{"type":"output_text","text":"a"}]},
      {"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
      {"type":"function_call","call_id":"2","name":"g","arguments":"{}"},
      {"type":"function_call_output","call_id":"1","output":"r"}])");
  ASSERT_EQ(request.messages.size(), 4u);
  EXPECT_EQ(request.messages[2].content, "a");
  ASSERT_EQ(request.messages[2].tool_calls.size(), 2u);
  EXPECT_EQ(request.messages[2].tool_calls[1].id, "2");
  EXPECT_EQ(request.messages[3].role, "tool");
  EXPECT_EQ(request.messages[3].tool_call_id, "1");
}

TEST(ResponsesRequest, WhatCannotBeHonouredIsNamed) {
  for (const auto& [more, param] : std::vector<std::pair<std::string, std::string>>{
           {R"("input":[])", "input"},
           {R"("input":7)", "input"},
           {R"("input":[{"type":"reasoning"}])", "input"},
           {R"("input":[{"role":"user","content":[{"type":"input_image"}]}])",
            "input[0].content[0]"},
           {R"("input":[{"type":"item_reference"}])", "input[0].type"},
           {R"("input":[{"type":"function_call","name":"f"}])", "input[0].call_id"},
           {R"("input":"x","store":true)", "store"},
           {R"("input":"x","previous_response_id":"r")", "previous_response_id"},
           {R"("input":"x","background":true)", "background"},
           {R"("input":"x","include":["reasoning.encrypted_content"])", "include"},
           {R"("input":"x","tools":[{"type":"web_search"}])", "tools[0].type"},
           {R"("input":"x","text":{"format":{"type":"json_schema"}})", "text.format.schema"},
           {R"("input":"x","tool_choice":"required")", "tool_choice"},
           {R"("input":"x","max_output_tokens":0)", "max_output_tokens"},
           {R"("input":"x","frobnicate":1)", "frobnicate"}}) {
    const ApiError error = Bad(more);
    EXPECT_EQ(error.http_status, 400) << more;
    EXPECT_EQ(error.param, param) << more;
  }
}

TEST(ResponsesResponse, StreamAndWholeSayTheSame) {
  const ResponsesHead head{.digits = "1", .created = 5, .model = "m"};
  ResponsesFormat stream(head);
  std::string out = stream.Begin({});
  out += stream.Delta(0, {.reasoning = "why"}, 0);
  out += stream.Delta(0, {.content = "one "}, 0);
  out += stream.Delta(0, {.content = "two", .calls = {{"call_1", "f", R"({"a":1})"}}}, 0);
  const Usage usage{.prompt_tokens = 3, .completion_tokens = 4, .reasoning_tokens = 1};
  out += stream.EndChoice(0, {{}, Ending::kToolCalls, ""}, usage);
  out += stream.End(usage);
  std::vector<json::value> events;
  for (size_t at = 0; at < out.size();) {
    const size_t data = out.find("data: ", at) + 6;
    const size_t end = out.find("\n\n", data);
    events.push_back(json::parse(out.substr(data, end - data)));
    EXPECT_EQ(out.substr(at, data - at - 7),
              "event: " + std::string(events.back().at("type").as_string().c_str()));
    EXPECT_EQ(events.back().at("sequence_number").as_int64(), std::ssize(events) - 1);
    at = end + 2;
  }
  std::vector<std::string> types;
  for (const json::value& event : events) types.emplace_back(event.at("type").as_string().c_str());
  const auto response = [](const char* name) { return "response." + std::string(name); };
  EXPECT_EQ(types, (std::vector<std::string>{response("created"),
                                             response("in_progress"),
                                             response("output_item.added"),
                                             response("content_part.added"),
                                             response("reasoning_text.delta"),
                                             response("reasoning_text.done"),
                                             response("content_part.done"),
                                             response("output_item.done"),
                                             response("output_item.added"),
                                             response("content_part.added"),
                                             response("output_text.delta"),
                                             response("output_text.delta"),
                                             response("output_text.done"),
                                             response("content_part.done"),
                                             response("output_item.done"),
                                             response("output_item.added"),
                                             response("function_call_arguments.delta"),
                                             response("function_call_arguments.done"),
                                             response("output_item.done"),
                                             response("completed")}));
  const WholeChoice whole{
      {.reasoning = "why", .content = "one two", .calls = {{"call_1", "f", R"({"a":1})"}}},
      Ending::kToolCalls,
      ""};
  EXPECT_EQ(json::parse(ResponsesFormat(head).Whole({whole}, usage)), events.back().at("response"));
}

TEST(ResponsesResponse, ALimitAndAFailure) {
  const ResponsesHead head{.digits = "1", .created = 5, .model = "m"};
  const json::value cut =
      json::parse(ResponsesFormat(head).Whole({{{.content = "x"}, Ending::kLength, ""}}, {}));
  EXPECT_EQ(cut.at("status"), "incomplete");
  EXPECT_EQ(cut.at("incomplete_details").at("reason"), "max_output_tokens");
  const std::string failed = ResponsesFormat(head).Fail({.message = "gone", .code = "peer_lost"});
  EXPECT_NE(failed.find(R"("error":{"code":"peer_lost","message":"gone"})"), std::string::npos);
  EXPECT_TRUE(failed.starts_with("event: response.failed\n"));
}

}  // namespace
}  // namespace expertmesh::gateway
