#include "gateway/core/openai_response.h"

#include <gtest/gtest.h>

namespace expertmesh::gateway {
namespace {

const AnswerHead kChat{.id = "chatcmpl-1", .created = 5, .model = "m", .fingerprint = "fp_0"};
const AnswerHead kText{
    .chat = false, .id = "cmpl-1", .created = 5, .model = "m", .fingerprint = "fp_0"};

constexpr char kUsage[] = R"({"prompt_tokens":10,"completion_tokens":3,"total_tokens":13,)"
                          R"("prompt_tokens_details":{"cached_tokens":4},)"
                          R"("completion_tokens_details":{"reasoning_tokens":2},)"
                          R"("prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6})";
const Usage kTenAndThree{
    .prompt_tokens = 10, .completion_tokens = 3, .cached_tokens = 4, .reasoning_tokens = 2};

// The JSON of one event.
std::string Json(const std::string& sse) {
  if (sse.empty()) return "";
  EXPECT_TRUE(sse.starts_with("data: ") && sse.ends_with("\n\n")) << sse;
  return sse.substr(6, sse.size() - 8);
}

WholeChoice Choice(ChoiceParts parts, Ending ending) { return {std::move(parts), ending, ""}; }
std::string Whole(const AnswerHead& head, ChoiceParts parts, Ending ending, const Usage& usage) {
  return OpenAiFormat(head).Whole({Choice(std::move(parts), ending)}, usage);
}
std::string Text(const AnswerHead& head, const ChoiceParts& parts) {
  return Json(OpenAiFormat(head).Delta(0, parts, 0));
}
std::string End(const AnswerHead& head, Ending ending) {
  return Json(OpenAiFormat(head).EndChoice(0, Choice({}, ending), {}));
}
std::string Begin(const AnswerHead& head) { return Json(OpenAiFormat(head).Begin({})); }

TEST(OpenAiResponse, WholeAnswers) {
  EXPECT_EQ(Whole(kChat, {.content = "hé\n\"x\""}, Ending::kStop, kTenAndThree),
            std::string(R"({"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"m",)"
                        R"("system_fingerprint":"fp_0","choices":[{"index":0,"message":)"
                        R"({"role":"assistant","content":"hé\n\"x\"","refusal":null},)"
                        R"("logprobs":null,"finish_reason":"stop"}],"usage":)") +
                kUsage + "}");
  EXPECT_EQ(Whole(kText, {.content = "x"}, Ending::kLength, kTenAndThree),
            std::string(R"({"id":"cmpl-1","object":"text_completion","created":5,"model":"m",)"
                        R"("system_fingerprint":"fp_0","choices":[{"index":0,"text":"x",)"
                        R"("logprobs":null,"finish_reason":"length"}],"usage":)") +
                kUsage + "}");
}

TEST(OpenAiResponse, ReasoningUnderBothNames) {
  AnswerHead head = kChat;
  head.thinking = true;
  EXPECT_NE(Whole(head, {.reasoning = "r", .content = "c"}, Ending::kStop, {})
                .find(R"("content":"c","refusal":null,"reasoning_content":"r","reasoning":"r"})"),
            std::string::npos);
  EXPECT_NE(
      Text(head, {.reasoning = "r"}).find(R"("delta":{"reasoning_content":"r","reasoning":"r"})"),
      std::string::npos);
}

TEST(OpenAiResponse, ChatChunks) {
  const std::string head =
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m",)"
      R"("system_fingerprint":"fp_0","choices":[)";
  EXPECT_EQ(Begin(kChat), head + R"({"index":0,"delta":{"role":"assistant","content":""},)"
                                 R"("logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(Text(kChat, {.content = "x"}),
            head + R"({"index":0,"delta":{"content":"x"},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(End(kChat, Ending::kLength),
            head + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]})");
  AnswerHead with_usage = kChat;
  with_usage.include_usage = true;
  EXPECT_EQ(OpenAiFormat(with_usage).End(kTenAndThree),
            Sse(head + R"(],"usage":)" + kUsage + "}") + std::string(kSseDone));
}

TEST(OpenAiResponse, UsageIsNullInTheChunksBeforeIt) {
  AnswerHead head = kChat;
  head.include_usage = true;
  for (const std::string& chunk :
       {Begin(head), Text(head, {.content = "x"}), End(head, Ending::kStop)}) {
    EXPECT_TRUE(chunk.ends_with(R"(}],"usage":null})")) << chunk;
  }
}

TEST(OpenAiResponse, TextChunks) {
  const std::string head = R"({"id":"cmpl-1","object":"text_completion","created":5,"model":"m",)"
                           R"("system_fingerprint":"fp_0","choices":[)";
  EXPECT_EQ(Begin(kText), "");
  EXPECT_EQ(Text(kText, {.content = "x"}),
            head + R"({"index":0,"text":"x","logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(End(kText, Ending::kStop),
            head + R"({"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]})");
}

TEST(OpenAiResponse, ErrorsAndModels) {
  EXPECT_EQ(ErrorBody(BadField("n", "is wrong")),
            R"({"error":{"message":"n is wrong","type":"invalid_request_error","param":"n",)"
            R"("code":"invalid_value"}})");
  EXPECT_EQ(ErrorBody({.message = "m", .type = "server_error"}),
            R"({"error":{"message":"m","type":"server_error","param":null,"code":null}})");
  EXPECT_EQ(ModelsBody("m", 5), R"({"object":"list","data":[{"id":"m","object":"model",)"
                                R"("created":5,"owned_by":"expertmesh"}]})");
}

TEST(OpenAiResponse, Events) {
  EXPECT_EQ(Sse("{}"), "data: {}\n\n");
  EXPECT_EQ(Sse(""), "");
}

}  // namespace
}  // namespace expertmesh::gateway
