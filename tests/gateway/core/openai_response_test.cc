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

TEST(OpenAiResponse, WholeAnswers) {
  EXPECT_EQ(WholeAnswer(kChat, {.content = "hé\n\"x\""}, "stop", kTenAndThree),
            std::string(R"({"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"m",)"
                        R"("system_fingerprint":"fp_0","choices":[{"index":0,"message":)"
                        R"({"role":"assistant","content":"hé\n\"x\"","refusal":null},)"
                        R"("logprobs":null,"finish_reason":"stop"}],"usage":)") +
                kUsage + "}");
  EXPECT_EQ(WholeAnswer(kText, {.content = "x"}, "length", kTenAndThree),
            std::string(R"({"id":"cmpl-1","object":"text_completion","created":5,"model":"m",)"
                        R"("system_fingerprint":"fp_0","choices":[{"index":0,"text":"x",)"
                        R"("logprobs":null,"finish_reason":"length"}],"usage":)") +
                kUsage + "}");
}

TEST(OpenAiResponse, ReasoningUnderBothNames) {
  AnswerHead head = kChat;
  head.thinking = true;
  EXPECT_NE(WholeAnswer(head, {.reasoning = "r", .content = "c"}, "stop", {})
                .find(R"("content":"c","refusal":null,"reasoning_content":"r","reasoning":"r"})"),
            std::string::npos);
  EXPECT_NE(TextChunk(head, {.reasoning = "r"})
                .find(R"("delta":{"reasoning_content":"r","reasoning":"r"})"),
            std::string::npos);
}

TEST(OpenAiResponse, ChatChunks) {
  const std::string head =
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m",)"
      R"("system_fingerprint":"fp_0","choices":[)";
  EXPECT_EQ(RoleChunk(kChat), head + R"({"index":0,"delta":{"role":"assistant","content":""},)"
                                     R"("logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(TextChunk(kChat, {.content = "x"}),
            head + R"({"index":0,"delta":{"content":"x"},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(FinishChunk(kChat, "length"),
            head + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]})");
  EXPECT_EQ(UsageChunk(kChat, kTenAndThree), head + R"(],"usage":)" + kUsage + "}");
}

TEST(OpenAiResponse, UsageIsNullInTheChunksBeforeIt) {
  AnswerHead head = kChat;
  head.include_usage = true;
  for (const std::string& chunk :
       {RoleChunk(head), TextChunk(head, {.content = "x"}), FinishChunk(head, "stop")}) {
    EXPECT_TRUE(chunk.ends_with(R"(}],"usage":null})")) << chunk;
  }
}

TEST(OpenAiResponse, TextChunks) {
  const std::string head = R"({"id":"cmpl-1","object":"text_completion","created":5,"model":"m",)"
                           R"("system_fingerprint":"fp_0","choices":[)";
  EXPECT_EQ(RoleChunk(kText), "");
  EXPECT_EQ(TextChunk(kText, {.content = "x"}),
            head + R"({"index":0,"text":"x","logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(FinishChunk(kText, "stop"),
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
