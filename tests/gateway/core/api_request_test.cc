#include "gateway/core/api_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>

#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kMessages[] = R"("messages":[{"role":"user","content":"hi"}])";

// A chat body of a model, one message and `more`.
std::string Chat(const std::string& more) {
  return absl::StrCat(R"({"model":"m",)", kMessages, more.empty() ? "" : ",", more, "}");
}
std::string Completion(const std::string& more) {
  return absl::StrCat(R"({"model":"m")", more.empty() ? "" : ",", more, "}");
}

ApiRequest Good(const ParsedRequest& parsed) {
  const auto* error = std::get_if<ApiError>(&parsed);
  EXPECT_EQ(error, nullptr) << error->message;
  return error == nullptr ? std::get<ApiRequest>(parsed) : ApiRequest();
}
ApiError Bad(const ParsedRequest& parsed) {
  const auto* error = std::get_if<ApiError>(&parsed);
  EXPECT_NE(error, nullptr);
  return error == nullptr ? ApiError() : *error;
}

TEST(ChatRequest, Defaults) {
  const ApiRequest request = Good(ParseChatRequest(Chat("")));
  EXPECT_TRUE(request.chat);
  EXPECT_EQ(request.model, "m");
  ASSERT_EQ(request.messages.size(), 1u);
  EXPECT_EQ(request.messages[0].role, "user");
  EXPECT_EQ(request.messages[0].content, "hi");
  EXPECT_EQ(request.temperature, 1.0f);
  EXPECT_EQ(request.top_p, 1.0f);
  EXPECT_EQ(request.top_k, 0u);
  EXPECT_EQ(request.max_tokens, 0u);
  EXPECT_FALSE(request.seed.has_value());
  EXPECT_TRUE(request.stop.empty());
  EXPECT_FALSE(request.stream || request.include_usage || request.thinking);
}

TEST(ChatRequest, EveryHonouredField) {
  const ApiRequest request = Good(ParseChatRequest(
      Chat(R"("temperature":0.5,"top_p":1,"top_k":40,"seed":18446744073709551615,"stream":true,
              "stream_options":{"include_usage":true},"stop":["a","b"],"max_tokens":7,
              "thinking":{"type":"enabled"})")));
  EXPECT_EQ(request.temperature, 0.5f);
  EXPECT_EQ(request.top_p, 1.0f);
  EXPECT_EQ(request.top_k, 40u);
  EXPECT_EQ(request.seed, UINT64_MAX);
  EXPECT_TRUE(request.stream && request.include_usage && request.thinking);
  EXPECT_THAT(request.stop, ElementsAre("a", "b"));
  EXPECT_EQ(request.max_tokens, 7u);
}

TEST(ChatRequest, TheNewerNameOfMaxTokensWinsInEitherOrder) {
  for (const char* text : {R"("max_tokens":5,"max_completion_tokens":9)",
                           R"("max_completion_tokens":9,"max_tokens":5)"}) {
    EXPECT_EQ(Good(ParseChatRequest(Chat(text))).max_tokens, 9u) << text;
  }
}

TEST(ChatRequest, NeutralNullAndIgnoredFieldsChangeNothing) {
  for (const char* text :
       {R"("n":1)", R"("presence_penalty":0,"frequency_penalty":0.0)", R"("logit_bias":{})",
        R"("logprobs":false,"top_logprobs":0)", R"("tools":[],"tool_choice":"none")",
        R"("response_format":{"type":"text"})", R"("modalities":["text"])", R"("user":"someone")",
        R"("metadata":{"a":[1,{"b":2}]},"store":true,"service_tier":"auto")",
        R"("prompt_cache_key":"k","safety_identifier":"s")",
        R"("verbosity":"low","prediction":{"type":"content"})",
        R"("temperature":null,"tools":null,"n":null,"stop":null,"seed":null,"max_tokens":null)",
        R"("stop":[])", R"("stream":false)"}) {
    const ApiRequest request = Good(ParseChatRequest(Chat(text)));
    EXPECT_EQ(request.temperature, 1.0f) << text;
    EXPECT_EQ(request.max_tokens, 0u) << text;
  }
}

TEST(ChatRequest, ChoicesAndTheirSampling) {
  const ApiRequest request = Good(ParseChatRequest(Chat(
      R"("n":4,"min_p":0.1,"presence_penalty":0.5,"frequency_penalty":-1,"repetition_penalty":1.1,)"
      R"("logit_bias":{"5":-100,"7":2.5},"logprobs":true,"top_logprobs":3,)"
      R"("reasoning_effort":"high")")));
  EXPECT_EQ(request.choices, 4u);
  EXPECT_FLOAT_EQ(request.min_p, 0.1f);
  EXPECT_FLOAT_EQ(request.presence_penalty, 0.5f);
  EXPECT_FLOAT_EQ(request.frequency_penalty, -1.0f);
  EXPECT_FLOAT_EQ(request.repetition_penalty, 1.1f);
  EXPECT_THAT(request.logit_bias, ElementsAre(std::pair(5u, -100.0f), std::pair(7u, 2.5f)));
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(request.top_logprobs, 3u);
  EXPECT_EQ(request.reasoning_effort, "high");
}

TEST(ChatRequest, ToolsAsTheEncodingsWantThem) {
  const ApiRequest request = Good(ParseChatRequest(Chat(
      R"("tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],)"
      R"("tool_choice":"auto","parallel_tool_calls":false)")));
  EXPECT_THAT(request.tools, ElementsAre(R"({"name": "f", "parameters": {"type": "object"}})"));
  EXPECT_EQ(request.tool_choice, ToolChoice::kAuto);
  EXPECT_FALSE(request.parallel_calls);
}

TEST(ChatRequest, FormOfTheAnswer) {
  const ApiRequest object =
      Good(ParseChatRequest(Chat(R"("response_format":{"type":"json_object"})")));
  EXPECT_EQ(object.answer_schema, R"({"type": "object"})");
  const ApiRequest schema = Good(ParseChatRequest(
      Chat(R"("response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,)"
           R"("schema":{"type":"integer"}}})")));
  EXPECT_EQ(schema.answer_schema, R"({"type":"integer"})");
  EXPECT_EQ(schema.answer_field, "response_format.json_schema.schema");
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f","strict":true}}],"tool_choice":)";
  EXPECT_EQ(Good(ParseChatRequest(Chat(tools + R"("required")"))).tool_choice,
            ToolChoice::kRequired);
  const ApiRequest named =
      Good(ParseChatRequest(Chat(tools + R"({"type":"function","function":{"name":"f"}})")));
  EXPECT_EQ(named.tool_choice, ToolChoice::kNamed);
  EXPECT_EQ(named.tool_name, "f");
  EXPECT_TRUE(named.functions.at(0).strict);
}

TEST(ChatRequest, CallsResultsAndPrefix) {
  const ApiRequest request = Good(ParseChatRequest(R"({"model":"m","messages":[
      {"role":"user","content":"u"},
      {"role":"assistant","content":null,"reasoning":"why","tool_calls":[
        {"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},
      {"role":"tool","tool_call_id":"c1","content":"42"},
      {"role":"assistant","content":"It is","prefix":true}]})"));
  ASSERT_EQ(request.messages.size(), 4u);
  EXPECT_EQ(request.messages[1].reasoning, "why");
  ASSERT_EQ(request.messages[1].tool_calls.size(), 1u);
  EXPECT_EQ(request.messages[1].tool_calls[0].name, "f");
  EXPECT_EQ(request.messages[1].tool_calls[0].id, "c1");
  EXPECT_EQ(request.messages[2].tool_call_id, "c1");
  EXPECT_TRUE(request.prefix);
}

TEST(ChatRequest, MessagesInTheirForms) {
  const ApiRequest request = Good(ParseChatRequest(R"({"model":"m","messages":[
      {"role":"developer","content":"d","name":"n"},
      {"role":"user","content":[{"type":"text","text":"one "},{"type":"text","text":"two"}]},
      {"role":"assistant","content":null,"tool_calls":[],"refusal":null},
      {"role":"assistant","content":"a","reasoning_content":"r","reasoning":"r"},
      {"role":"user","content":"\u0000\ud83d\ude00"}]})"));
  ASSERT_EQ(request.messages.size(), 5u);
  EXPECT_EQ(request.messages[0].role, "developer");
  EXPECT_EQ(request.messages[1].content, "one two");
  EXPECT_EQ(request.messages[2].content, "");
  EXPECT_EQ(request.messages[3].content, "a");
  EXPECT_EQ(request.messages[4].content, std::string("\0😀", 5));
}

struct BadField {
  const char* text;
  const char* param;
  const char* code = "invalid_value";
};
void PrintTo(const BadField& bad, std::ostream* out) { *out << bad.text; }

class BadChatField : public testing::TestWithParam<BadField> {};

TEST_P(BadChatField, Is400NamingTheField) {
  const ApiError error = Bad(ParseChatRequest(Chat(GetParam().text)));
  EXPECT_EQ(error.http_status, 400);
  EXPECT_EQ(error.param, GetParam().param);
  EXPECT_EQ(error.code, GetParam().code);
  EXPECT_EQ(error.type, "invalid_request_error");
  EXPECT_THAT(error.message, HasSubstr(GetParam().param));
}

constexpr char kUnsupported[] = "unsupported_parameter";

INSTANTIATE_TEST_SUITE_P(
    WrongTypesAndRanges, BadChatField,
    testing::Values(
        BadField{R"("temperature":-0.1)", "temperature"},
        BadField{R"("temperature":2.001)", "temperature"},
        BadField{R"("temperature":"1")", "temperature"},
        BadField{R"("temperature":1e999)", "temperature"}, BadField{R"("top_p":0)", "top_p"},
        BadField{R"("top_p":1e-60)", "top_p"}, BadField{R"("top_p":1.5)", "top_p"},
        BadField{R"("top_p":[])", "top_p"}, BadField{R"("top_k":-1)", "top_k"},
        BadField{R"("top_k":1.5)", "top_k"}, BadField{R"("top_k":99999999)", "top_k"},
        BadField{R"("seed":1.5)", "seed"}, BadField{R"("seed":"7")", "seed"},
        BadField{R"("max_tokens":0)", "max_tokens"}, BadField{R"("max_tokens":-4)", "max_tokens"},
        BadField{R"("max_tokens":4294967297)", "max_tokens"},
        BadField{R"("max_tokens":true)", "max_tokens"},
        BadField{R"("max_completion_tokens":0)", "max_completion_tokens"},
        BadField{R"("stream":"yes")", "stream"},
        BadField{R"("stream":true,"stream_options":7)", "stream_options"},
        BadField{R"("stream":true,"stream_options":{"include_usage":1})",
                 "stream_options.include_usage"},
        BadField{R"("stream_options":{})", "stream_options"}, BadField{R"("stop":"")", "stop"},
        BadField{R"("stop":5)", "stop"}, BadField{R"("stop":["a",1])", "stop[1]"},
        BadField{R"("stop":["a",""])", "stop[1]"},
        BadField{R"("stop":[1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7])", "stop"},
        BadField{R"("n":0)", "n"}, BadField{R"("n":9)", "n"}, BadField{R"("n":"2")", "n"},
        BadField{R"("min_p":1.1)", "min_p"},
        BadField{R"("presence_penalty":2.5)", "presence_penalty"},
        BadField{R"("frequency_penalty":-3)", "frequency_penalty"},
        BadField{R"("repetition_penalty":0)", "repetition_penalty"},
        BadField{R"("logit_bias":[])", "logit_bias"},
        BadField{R"("logit_bias":{"a":1})", "logit_bias.a"},
        BadField{R"("logit_bias":{"-5":1})", "logit_bias.-5"},
        BadField{R"("logit_bias":{"5":101})", "logit_bias.5"},
        BadField{R"("logprobs":3)", "logprobs"}, BadField{R"("top_logprobs":3)", "top_logprobs"},
        BadField{R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
        BadField{R"("tools":{})", "tools"}, BadField{R"("tools":[{}])", "tools[0].type"},
        BadField{R"("tools":[{"type":"function"}])", "tools[0].function"},
        BadField{R"("tools":[{"type":"function","function":{"name":"a b"}}])",
                 "tools[0].function.name"},
        BadField{R"("tools":[{"type":"function","function":{"name":"a","parameters":1}}])",
                 "tools[0].function.parameters"},
        BadField{R"("parallel_tool_calls":1)", "parallel_tool_calls"},
        BadField{R"("reasoning_effort":"huge")", "reasoning_effort"},
        BadField{R"("tool_choice":"required")", "tool_choice"},
        BadField{R"("tool_choice":"always")", "tool_choice"},
        BadField{R"("tool_choice":{"type":"function"})", "tool_choice.name"},
        BadField{R"("tool_choice":{"type":"function","function":{"name":"g"}},)"
                 R"("tools":[{"type":"function","function":{"name":"f"}}])",
                 "tool_choice"},
        BadField{R"("tools":[{"type":"function","function":{"name":"f","strict":1}}])",
                 "tools[0].function.strict"},
        BadField{R"("response_format":"json")", "response_format.type"},
        BadField{R"("response_format":{"type":"xml"})", "response_format.type"},
        BadField{R"("response_format":{"type":"json_schema"})", "response_format.schema"},
        BadField{R"("response_format":{"type":"json_schema","json_schema":{"name":"n"}})",
                 "response_format.json_schema.schema"},
        BadField{R"("thinking":true)", "thinking"},
        BadField{R"("thinking":{"type":"sometimes"})", "thinking"}));

INSTANTIATE_TEST_SUITE_P(
    NotYetOrUnknown, BadChatField,
    testing::Values(BadField{R"("tool_choice":{"type":"allowed_tools"})", "tool_choice",
                             kUnsupported},
                    BadField{R"("functions":[{}])", "functions", kUnsupported},
                    BadField{R"("modalities":["audio"])", "modalities", kUnsupported},
                    BadField{R"("audio":{"voice":"x"})", "audio", kUnsupported},
                    BadField{R"("echo":true)", "echo", "unknown_parameter"},
                    BadField{R"("temprature":1)", "temprature", "unknown_parameter"}));

class BadMessages : public testing::TestWithParam<BadField> {};

TEST_P(BadMessages, Is400NamingTheMessage) {
  const ApiError error =
      Bad(ParseChatRequest(absl::StrCat(R"({"model":"m","messages":)", GetParam().text, "}")));
  EXPECT_EQ(error.http_status, 400);
  EXPECT_EQ(error.param, GetParam().param);
  EXPECT_EQ(error.code, GetParam().code);
}

INSTANTIATE_TEST_SUITE_P(
    Messages, BadMessages,
    testing::Values(
        BadField{"[]", "messages"}, BadField{"null", "messages"}, BadField{"\"hi\"", "messages"},
        BadField{"[7]", "messages[0]"}, BadField{"[{}]", "messages[0].role"},
        BadField{R"([{"role":"user","content":"x"},{"role":"robot","content":"x"}])",
                 "messages[1].role"},
        BadField{R"([{"role":"tool","content":"x"}])", "messages[0].tool_call_id"},
        BadField{R"([{"role":1,"content":"x"}])", "messages[0].role"},
        BadField{R"([{"role":"user"}])", "messages[0].content"},
        BadField{R"([{"role":"user","content":null}])", "messages[0].content"},
        BadField{R"([{"role":"user","content":{}}])", "messages[0].content"},
        BadField{R"([{"role":"user","content":["x"]}])", "messages[0].content[0]"},
        BadField{R"([{"role":"user","content":[{"type":"text","text":"a"},
                     {"type":"image_url","image_url":{"url":"u"}}]}])",
                 "messages[0].content[1]"},
        BadField{R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text"},
        BadField{R"([{"role":"assistant","tool_calls":[{"id":"1"}]}])",
                 "messages[0].tool_calls[0]"},
        BadField{R"([{"role":"user","content":"x","prefix":true}])", "messages[0].prefix"}));

TEST(ChatRequest, ModelIsNeeded) {
  for (const char* model : {"", R"("model":null,)", R"("model":"",)", R"("model":5,)"}) {
    const ApiError error = Bad(ParseChatRequest(absl::StrCat("{", model, kMessages, "}")));
    EXPECT_EQ(error.http_status, 400);
    EXPECT_EQ(error.param, "model") << model;
  }
}

struct BadBody {
  std::string text;
  const char* code;
};

TEST(Bodies, BytesThatAreNoObjectOfJson) {
  const std::string deep(100, '[');
  std::string wide = "[";
  for (int i = 0; i < (2 << 20) + 1; ++i) wide += "1,";
  const BadBody bodies[] = {
      {"", "invalid_json"},
      {"{", "invalid_json"},
      {"nonsense", "invalid_json"},
      {"[]", "invalid_json"},
      {"\"text\"", "invalid_json"},
      {"null", "invalid_json"},
      {Chat("") + "x", "invalid_json"},
      {Chat(R"("temperature":NaN)"), "invalid_json"},
      {Chat(R"("temperature":Infinity)"), "invalid_json"},
      {Chat(R"("user":"\ud800")"), "invalid_json"},  // half of a surrogate pair
      {Chat("\"metadata\":" + deep), "invalid_json"},
      {Chat("\"metadata\":" + wide), "invalid_json"},
      {std::string("{\"model\0\":1}", 12), "invalid_json"},
      {Chat("\"user\":\"\xff\""), "invalid_utf8"},
      {Chat("\"user\":\"\xc0\xaf\""), "invalid_utf8"},
      {Chat("\"user\":\"\xed\xa0\x80\""), "invalid_utf8"},
  };
  for (const BadBody& body : bodies) {
    for (const ParsedRequest& parsed :
         {ParseChatRequest(body.text), ParseCompletionRequest(body.text)}) {
      const ApiError error = Bad(parsed);
      EXPECT_EQ(error.http_status, 400);
      EXPECT_EQ(error.code, body.code) << body.text.substr(0, 100);
    }
  }
}

TEST(Bodies, MessagesSayWhere) {
  EXPECT_THAT(Bad(ParseChatRequest("{\"a\":x}")).message, HasSubstr("at byte 5"));
  EXPECT_THAT(Bad(ParseChatRequest("{\"a\":\"\xff\"}")).message, HasSubstr("at byte 6"));
}

TEST(CompletionRequest, PromptInItsForms) {
  EXPECT_EQ(Good(ParseCompletionRequest(Completion(R"("prompt":"text")"))).prompt, "text");
  EXPECT_EQ(Good(ParseCompletionRequest(Completion(R"("prompt":["text"])"))).prompt, "text");
  EXPECT_EQ(Good(ParseCompletionRequest(Completion(R"("prompt":"")"))).prompt, "");
  for (const char* prompt : {R"("prompt":[1,2,4294967295])", R"("prompt":[[1,2,4294967295]])"}) {
    EXPECT_THAT(Good(ParseCompletionRequest(Completion(prompt))).prompt_tokens,
                ElementsAre(1u, 2u, 4294967295u));
  }
  const ApiRequest request = Good(ParseCompletionRequest(Completion(R"("prompt":[7])")));
  EXPECT_THAT(request.prompt_tokens, ElementsAre(7u));
  EXPECT_FALSE(request.chat);
  EXPECT_EQ(request.max_tokens, 16u);
}

TEST(CompletionRequest, BadPrompts) {
  for (const char* prompt :
       {R"("user":"u")", R"("prompt":null)", R"("prompt":5)", R"("prompt":[])", R"("prompt":[[]])",
        R"("prompt":["a","b"])", R"("prompt":[1,"a"])", R"("prompt":[-1])",
        R"("prompt":[4294967296])", R"("prompt":[1.5])", R"("prompt":[[1],[2]])"}) {
    const ApiError error = Bad(ParseCompletionRequest(Completion(prompt)));
    EXPECT_EQ(error.http_status, 400) << prompt;
    EXPECT_EQ(error.param, "prompt") << prompt;
  }
}

TEST(CompletionRequest, FieldsOfItsOwn) {
  Good(ParseCompletionRequest(Completion(R"("prompt":"a","echo":false,"best_of":1,"suffix":"")")));
  for (const char* field : {R"("echo":true)", R"("best_of":3)"}) {
    const ApiError error =
        Bad(ParseCompletionRequest(Completion(absl::StrCat(R"("prompt":"a",)", field))));
    EXPECT_EQ(error.code, "unsupported_parameter") << field;
  }
  const ApiRequest gap = Good(ParseCompletionRequest(
      Completion(R"("prompt":"a","suffix":"s","n":2,"logprobs":5,"max_tokens":3)")));
  EXPECT_EQ(gap.suffix, "s");
  EXPECT_EQ(gap.choices, 2u);
  EXPECT_TRUE(gap.logprobs);
  EXPECT_EQ(gap.top_logprobs, 5u);
  EXPECT_EQ(Bad(ParseCompletionRequest(Completion(R"("prompt":[1,2],"suffix":"s")"))).param,
            "suffix");
  for (const char* field : {R"("messages":[])", R"("max_completion_tokens":5)"}) {
    const ApiError error =
        Bad(ParseCompletionRequest(Completion(absl::StrCat(R"("prompt":"a",)", field))));
    EXPECT_EQ(error.code, "unknown_parameter") << field;
  }
}

}  // namespace
}  // namespace expertmesh::gateway
