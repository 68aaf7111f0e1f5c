// Every field of every door: what it does, tried. docs/api.md is this table, so the page cannot say
// what the gateway does not do.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gateway/core/api_request.h"

namespace expertmesh::gateway {
namespace {

enum class Does {
  kHonoured,  // changes the request
  kIgnored,   // is taken, whatever it says, and changes nothing
  kNeutral,   // is taken with this value, which changes nothing, and refused with `other`
  kRefused    // 400 that names it
};

struct Row {
  const char* field;
  Does does;
  const char* sample;      // members of the body
  const char* note = "";   // for the page
  const char* other = "";  // kNeutral: what is refused
};

struct DoorTable {
  const char* path;
  const char* base;  // a body without its closing brace
  std::function<ParsedRequest(std::string_view)> parse;
  std::vector<Row> rows;
};

constexpr const char* kTool =
    R"("tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])";

// With the usual defaults of sampling.
template <auto kParse>
ParsedRequest Parse(std::string_view body) {
  return kParse(body, {});
}
ParsedRequest ParseMessages(std::string_view body) { return ParseMessagesRequest(body); }

using enum Does;

const std::vector<Row> kChatRows = {
    {"temperature", kHonoured, R"("temperature":0.5)",
     "0 to 2; absent: of the model's `generation_config.json`, else 1"},
    {"top_p", kHonoured, R"("top_p":0.5)", "above 0, at most 1; absent: likewise, else 1"},
    {"top_k", kHonoured, R"("top_k":40)", "0 is all; absent: likewise, else 0"},
    {"min_p", kHonoured, R"("min_p":0.1)", "0 to 1"},
    {"seed", kHonoured, R"("seed":7)", "any 64-bit integer; drawn if absent"},
    {"presence_penalty", kHonoured, R"("presence_penalty":1)", "−2 to 2"},
    {"frequency_penalty", kHonoured, R"("frequency_penalty":1)", "−2 to 2"},
    {"repetition_penalty", kHonoured, R"("repetition_penalty":1.2)", "0.01 to 100"},
    {"logit_bias", kHonoured, R"("logit_bias":{"5":2})", "token id → −100 to 100"},
    {"max_tokens", kHonoured, R"("max_tokens":9)", "to the end of the context if absent"},
    {"max_completion_tokens", kHonoured, R"("max_completion_tokens":9)", "wins over max_tokens"},
    {"n", kHonoured, R"("n":3)", "1 to 8; choice i equals its replay"},
    {"stop", kHonoured, R"("stop":["a","b"])", "up to 16 strings"},
    {"stream", kHonoured, R"("stream":true)"},
    {"stream_options.include_usage", kHonoured,
     R"("stream":true,"stream_options":{"include_usage":true})"},
    {"logprobs", kHonoured, R"("logprobs":true)"},
    {"top_logprobs", kHonoured, R"("logprobs":true,"top_logprobs":3)", "0 to 20"},
    {"thinking", kHonoured, R"("thinking":{"type":"enabled"})"},
    {"reasoning_effort", kHonoured, R"("reasoning_effort":"high")"},
    {"tools", kHonoured, kTool, "functions, up to 128"},
    {"tools[].function.strict", kHonoured,
     R"("tools":[{"type":"function","function":{"name":"f","strict":true}}])",
     "arguments satisfy their schema"},
    {"tool_choice", kHonoured,
     R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required")",
     "none, auto, required, a function"},
    {"tool_choice of type allowed_tools", kRefused, R"("tool_choice":{"type":"allowed_tools"})"},
    {"parallel_tool_calls", kHonoured, R"("parallel_tool_calls":false)"},
    {"response_format", kHonoured, R"("response_format":{"type":"json_object"})",
     "text, json_object, json_schema"},
    {"user", kIgnored, R"("user":"u")"},
    {"metadata", kIgnored, R"("metadata":{"a":"b"})"},
    {"store", kIgnored, R"("store":true)", "nothing is stored"},
    {"service_tier", kIgnored, R"("service_tier":"auto")"},
    {"prompt_cache_key", kIgnored, R"("prompt_cache_key":"k")"},
    {"prompt_cache_retention", kIgnored, R"("prompt_cache_retention":"24h")"},
    {"safety_identifier", kIgnored, R"("safety_identifier":"s")"},
    {"verbosity", kIgnored, R"("verbosity":"low")"},
    {"thinking_budget", kIgnored, R"("thinking_budget":100)"},
    {"prediction", kIgnored, R"("prediction":{"type":"content","content":"x"})"},
    {"modalities", kNeutral, R"("modalities":["text"])", "[\"text\"]", R"("modalities":["audio"])"},
    {"functions", kNeutral, R"("functions":[])", "empty; use tools",
     R"("functions":[{"name":"f"}])"},
    {"function_call", kNeutral, R"("function_call":"none")", "\"none\"",
     R"("function_call":"auto")"},
    {"audio", kRefused, R"("audio":{"voice":"x"})"},
    {"web_search_options", kRefused, R"("web_search_options":{})"},
    {"anything else", kRefused, R"("temprature":1)", "unknown_parameter"},
};

const std::vector<Row> kCompletionRows = {
    {"temperature", kHonoured, R"("temperature":0.5)"},
    {"top_p", kHonoured, R"("top_p":0.5)"},
    {"top_k", kHonoured, R"("top_k":40)"},
    {"min_p", kHonoured, R"("min_p":0.1)"},
    {"seed", kHonoured, R"("seed":7)"},
    {"presence_penalty", kHonoured, R"("presence_penalty":1)"},
    {"frequency_penalty", kHonoured, R"("frequency_penalty":1)"},
    {"repetition_penalty", kHonoured, R"("repetition_penalty":1.2)"},
    {"logit_bias", kHonoured, R"("logit_bias":{"5":2})"},
    {"max_tokens", kHonoured, R"("max_tokens":9)", "16 if absent"},
    {"n", kHonoured, R"("n":3)"},
    {"stop", kHonoured, R"("stop":"a")"},
    {"stream", kHonoured, R"("stream":true)"},
    {"stream_options.include_usage", kHonoured,
     R"("stream":true,"stream_options":{"include_usage":true})"},
    {"logprobs", kHonoured, R"("logprobs":3)", "0 to 20"},
    {"suffix", kHonoured, R"("suffix":"end")", "fill in the middle"},
    {"user", kIgnored, R"("user":"u")"},
    {"echo", kNeutral, R"("echo":false)", "false", R"("echo":true)"},
    {"best_of", kNeutral, R"("best_of":1)", "1", R"("best_of":2)"},
    {"anything else", kRefused, R"("tools":[])", "unknown_parameter"},
};

const std::vector<Row> kResponsesRows = {
    {"instructions", kHonoured, R"("instructions":"Be brief.")", "a system message"},
    {"max_output_tokens", kHonoured, R"("max_output_tokens":9)"},
    {"temperature", kHonoured, R"("temperature":0.5)"},
    {"top_p", kHonoured, R"("top_p":0.5)"},
    {"stream", kHonoured, R"("stream":true)"},
    {"tools", kHonoured, R"("tools":[{"type":"function","name":"f"}])", "functions"},
    {"tool_choice", kHonoured,
     R"("tools":[{"type":"function","name":"f"}],"tool_choice":"required")"},
    {"parallel_tool_calls", kHonoured, R"("parallel_tool_calls":false)"},
    {"reasoning.effort", kHonoured, R"("reasoning":{"effort":"high"})"},
    {"reasoning.summary", kIgnored, R"("reasoning":{"summary":"auto"})"},
    {"text.format", kHonoured, R"("text":{"format":{"type":"json_object"}})"},
    {"text.verbosity", kIgnored, R"("text":{"verbosity":"low"})"},
    {"metadata", kIgnored, R"("metadata":{})"},
    {"service_tier", kIgnored, R"("service_tier":"auto")"},
    {"user", kIgnored, R"("user":"u")"},
    {"safety_identifier", kIgnored, R"("safety_identifier":"s")"},
    {"prompt_cache_key", kIgnored, R"("prompt_cache_key":"k")"},
    {"prompt_cache_retention", kIgnored, R"("prompt_cache_retention":"24h")"},
    {"stream_options", kIgnored, R"("stream_options":{})"},
    {"max_tool_calls", kIgnored, R"("max_tool_calls":3)"},
    {"truncation", kIgnored, R"("truncation":"auto")"},
    {"store", kNeutral, R"("store":false)", "false", R"("store":true)"},
    {"background", kNeutral, R"("background":false)", "false", R"("background":true)"},
    {"include", kNeutral, R"("include":[])", "empty", R"("include":["x"])"},
    {"previous_response_id", kRefused, R"("previous_response_id":"r")", "nothing is stored"},
    {"conversation", kRefused, R"("conversation":"c")", "nothing is stored"},
    {"prompt", kRefused, R"("prompt":{"id":"p"})", "nothing is stored"},
    {"anything else", kRefused, R"("frobnicate":1)", "unknown_parameter"},
};

const std::vector<Row> kMessagesRows = {
    {"system", kHonoured, R"("system":"Be brief.")"},
    {"temperature", kHonoured, R"("temperature":0.5)", "0 to 2"},
    {"top_p", kHonoured, R"("top_p":0.5)"},
    {"top_k", kHonoured, R"("top_k":4)"},
    {"stop_sequences", kHonoured, R"("stop_sequences":["a"])"},
    {"stream", kHonoured, R"("stream":true)"},
    {"tools", kHonoured, R"("tools":[{"name":"f","input_schema":{"type":"object"}}])"},
    {"tools of the server", kRefused, R"("tools":[{"type":"bash_20250124","name":"bash"}])"},
    {"tool_choice", kHonoured,
     R"("tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"any"})",
     "auto, any, tool, none"},
    {"tool_choice.disable_parallel_tool_use", kHonoured,
     R"("tool_choice":{"type":"auto","disable_parallel_tool_use":true})"},
    {"thinking", kHonoured, R"("thinking":{"type":"enabled","budget_tokens":1024})",
     "budget_tokens is ignored"},
    {"output_config.effort", kHonoured, R"("output_config":{"effort":"high"})"},
    {"output_config.format", kHonoured,
     R"("output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}})"},
    {"metadata", kIgnored, R"("metadata":{"user_id":"u"})"},
    {"service_tier", kIgnored, R"("service_tier":"auto")"},
    {"container", kIgnored, R"("container":"c")"},
    {"mcp_servers", kIgnored, R"("mcp_servers":[])"},
    {"cache_control", kIgnored, R"("cache_control":{"type":"ephemeral"})"},
    {"betas", kIgnored, R"("betas":["x"])"},
    {"inference_geo", kIgnored, R"("inference_geo":"us")"},
    {"context_management", kIgnored, R"("context_management":{})"},
    {"anything else", kRefused, R"("frobnicate":1)", "unknown_parameter"},
};

const std::vector<DoorTable> kTables = {
    {"/v1/chat/completions", R"({"model":"m","messages":[{"role":"user","content":"hi"}])",
     Parse<ParseChatRequest>, kChatRows},
    {"/v1/completions", R"({"model":"m","prompt":"hi")", Parse<ParseCompletionRequest>,
     kCompletionRows},
    {"/v1/responses", R"({"model":"m","input":"hi")", Parse<ParseResponsesRequest>, kResponsesRows},
    {"/anthropic/v1/messages",
     R"({"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}])", ParseMessages,
     kMessagesRows},
};

std::string Body(const DoorTable& table, const char* members) {
  return absl::StrCat(table.base, *members == '\0' ? "" : ",", members, "}");
}

void Try(const DoorTable& table, const Row& row) {
  const std::string where = absl::StrCat(table.path, " ", row.field);
  const ParsedRequest base = table.parse(Body(table, ""));
  const ParsedRequest parsed = table.parse(Body(table, row.sample));
  const auto* request = std::get_if<ApiRequest>(&parsed);
  const auto* error = std::get_if<ApiError>(&parsed);
  ASSERT_TRUE(std::holds_alternative<ApiRequest>(base)) << std::get<ApiError>(base).message;
  if (row.does == Does::kRefused) {
    ASSERT_NE(error, nullptr) << where << " was taken";
    EXPECT_EQ(error->http_status, 400) << where;
    EXPECT_FALSE(error->param.empty()) << where;
    return;
  }
  ASSERT_NE(request, nullptr) << where << ": " << error->message;
  const bool same = *request == std::get<ApiRequest>(base);
  EXPECT_EQ(same, row.does != Does::kHonoured) << where;
  if (row.does != Does::kNeutral) return;
  const ParsedRequest other = table.parse(Body(table, row.other));
  const auto* refused = std::get_if<ApiError>(&other);
  ASSERT_NE(refused, nullptr) << where << " was taken with " << row.other;
  EXPECT_EQ(refused->param, row.field) << where;
}

TEST(ApiFields, EachDoesWhatThePageSays) {
  for (const DoorTable& table : kTables) {
    for (const Row& row : table.rows) Try(table, row);
  }
}

std::string Page() {
  std::string page =
      "# Fields of the HTTP API\n"
      "Written by `gateway_core_test` from the cases it tries (`tests/gateway/core/"
      "api_fields_test.cc`); run it with `EXPERTMESH_UPDATE_DOCS=1` after a change. `null` is the "
      "same as leaving a field out. What each does in detail: [gateway](../gateway/README.md), "
      "[structured output](structured-output.md).\n";
  for (const DoorTable& table : kTables) {
    absl::StrAppend(&page, "\n## ", table.path, "\n| field | | |\n|---|---|---|\n");
    for (const Row& row : table.rows) {
      const char* does = row.does == Does::kHonoured  ? "honoured"
                         : row.does == Does::kIgnored ? "ignored"
                         : row.does == Does::kNeutral ? "only if neutral, else 400"
                                                      : "400";
      absl::StrAppend(&page, "| `", row.field, "` | ", does, " | ", row.note, " |\n");
    }
  }
  return page;
}

TEST(ApiFields, ThePageIsThisTable) {
  const std::string path = std::string(EXPERTMESH_SOURCE_DIR) + "/docs/api.md";
  if (std::getenv("EXPERTMESH_UPDATE_DOCS") != nullptr) std::ofstream(path) << Page();
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), Page()) << "run gateway_core_test with EXPERTMESH_UPDATE_DOCS=1";
}

}  // namespace
}  // namespace expertmesh::gateway
