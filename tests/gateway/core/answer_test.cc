#include "gateway/core/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "model/tokenizer/preset_writer.h"
#include "model/tokenizer/special_tokens.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;
using testing::ElementsAre;

class AnswerTest : public testing::Test {
 protected:
  std::vector<uint32_t> Ids(const std::string& text) const {
    return tokenizer_->Encode(text, true).value();
  }
  uint32_t Id(std::string_view name) const { return tokenizer_->IdOf(name).value(); }

  // The JSON bodies of a stream's events; "[DONE]" as a string.
  static std::vector<json::value> Events(const std::string& sse) {
    std::vector<json::value> events;
    for (size_t at = 0; at < sse.size();) {
      const size_t end = sse.find("\n\n", at);
      EXPECT_NE(end, std::string::npos);
      EXPECT_EQ(sse.substr(at, 6), "data: ");
      const std::string body = sse.substr(at + 6, end - at - 6);
      events.push_back(body == "[DONE]" ? json::value(body) : json::parse(body));
      at = end + 2;
    }
    return events;
  }
  static std::string Field(const json::value& event, const char* name) {
    const json::object& delta = event.at("choices").at(0).at("delta").as_object();
    const json::value* value = delta.if_contains(name);
    return value == nullptr ? "" : std::string(value->as_string().c_str());
  }
  static std::string Joined(const std::vector<json::value>& events, const char* name) {
    std::string text;
    for (const json::value& event : events) {
      if (event.is_object() && !event.at("choices").as_array().empty()) text += Field(event, name);
    }
    return text;
  }

  static void SetUpTestSuite() {
    tokenizer_ = model::Tokenizer::FromJson(model::PresetTokenizerJson(2000).value()).value();
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  static inline std::unique_ptr<model::Tokenizer> tokenizer_;
  const AnswerHead head_{.id = "chatcmpl-1", .created = 5, .model = "m", .fingerprint = "fp_0"};
};

TEST_F(AnswerTest, StreamOfAChat) {
  Answer answer(head_, *tokenizer_, {.stream = true});
  answer.SetPrompt(7, 2);
  std::string sse = answer.Begin();
  const std::vector<uint32_t> ids = Ids("Grüße 😀!");
  for (const uint32_t id : ids) sse += answer.OnToken(id);
  sse += answer.OnToken(Id(model::special::kEos));
  sse += answer.Finish("stop");

  const std::vector<json::value> events = Events(sse);
  EXPECT_EQ(Field(events.front(), "role"), "assistant");
  EXPECT_EQ(Joined(events, "content"), "Grüße 😀!");
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events.back(), json::value("[DONE]"));
  EXPECT_EQ(events[events.size() - 2].at("choices").at(0).at("finish_reason"), "stop");
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    EXPECT_TRUE(events[i].at("choices").at(0).at("finish_reason").is_null());
    EXPECT_EQ(events[i].at("id"), "chatcmpl-1");
    EXPECT_FALSE(events[i].as_object().contains("usage"));
  }
  EXPECT_EQ(answer.usage().prompt_tokens, 7u);
  EXPECT_EQ(answer.usage().cached_tokens, 2u);
  EXPECT_EQ(answer.usage().completion_tokens, ids.size() + 1);
}

TEST_F(AnswerTest, UsageComesLastAndWithoutChoices) {
  AnswerHead head = head_;
  head.include_usage = true;
  Answer answer(head, *tokenizer_, {.stream = true});
  answer.SetPrompt(7, 0);
  answer.OnToken(Ids("a").front());
  const std::vector<json::value> events = Events(answer.Finish("length"));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_TRUE(events[0].at("usage").is_null());
  EXPECT_TRUE(events[1].at("choices").as_array().empty());
  EXPECT_EQ(events[1].at("usage").at("total_tokens"), 8);
  EXPECT_EQ(events[2], json::value("[DONE]"));
}

TEST_F(AnswerTest, WholeAnswerSaysNothingBeforeItsEnd) {
  Answer answer(head_, *tokenizer_, {});
  EXPECT_EQ(answer.Begin(), "");
  for (const uint32_t id : Ids("one two")) EXPECT_EQ(answer.OnToken(id), "");
  const json::value body = json::parse(answer.Finish("length"));
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content"), "one two");
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(body.at("object"), "chat.completion");
}

TEST_F(AnswerTest, StopStringEndsTheAnswer) {
  for (const bool stream : {false, true}) {
    Answer answer(head_, *tokenizer_, {.stream = stream, .stop = {"STOP"}});
    std::string out = answer.Begin();
    uint32_t taken = 0;
    for (const uint32_t id : Ids("before STOP behind")) {
      if (answer.stopped()) break;
      out += answer.OnToken(id);
      ++taken;
    }
    EXPECT_TRUE(answer.stopped());
    EXPECT_EQ(answer.OnToken(Ids("x").front()), "");
    out += answer.Finish("length");
    EXPECT_EQ(answer.usage().completion_tokens, taken);
    EXPECT_EQ(out.find("STOP"), std::string::npos);
    EXPECT_EQ(out.find("behind"), std::string::npos);
    EXPECT_NE(out.find(R"("finish_reason":"stop")"), std::string::npos);
    if (stream) {
      EXPECT_EQ(Joined(Events(out), "content"), "before ");
    }
  }
}

TEST_F(AnswerTest, HeldBackTextComesWithTheEnd) {
  Answer answer(head_, *tokenizer_, {.stream = true, .stop = {"abc"}});
  std::string sse = answer.Begin();
  for (const uint32_t id : Ids("xab")) sse += answer.OnToken(id);
  sse += answer.Finish("stop");
  EXPECT_EQ(Joined(Events(sse), "content"), "xab");
}

TEST_F(AnswerTest, AnOpenCharacterAtTheEndIsReplaced) {
  Answer answer(head_, *tokenizer_, {});
  const std::vector<uint32_t> ids = Ids("𝔘");
  ASSERT_GT(ids.size(), 1u);
  answer.OnToken(ids.front());
  const json::value body = json::parse(answer.Finish("length"));
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content"), "\ufffd");
}

TEST_F(AnswerTest, ReasoningUpToItsEndMark) {
  const uint32_t end = Id(model::special::kEndThink);
  for (const bool stream : {true, false}) {
    Answer answer(head_, *tokenizer_,
                  {.stream = stream, .stop = {"STOP"}, .end_of_reasoning = end});
    std::string out = answer.Begin();
    const std::vector<uint32_t> thought = Ids("think STOP");
    for (const uint32_t id : thought) out += answer.OnToken(id);
    out += answer.OnToken(end);
    EXPECT_FALSE(answer.stopped());
    for (const uint32_t id : Ids("say")) out += answer.OnToken(id);
    out += answer.Finish("stop");
    EXPECT_EQ(answer.usage().reasoning_tokens, thought.size() + 1);
    if (stream) {
      EXPECT_EQ(Joined(Events(out), "reasoning_content"), "think STOP");
      EXPECT_EQ(Joined(Events(out), "reasoning"), "think STOP");
      EXPECT_EQ(Joined(Events(out), "content"), "say");
    } else {
      const json::value message = json::parse(out).at("choices").at(0).at("message");
      EXPECT_EQ(message.at("reasoning_content"), "think STOP");
      EXPECT_EQ(message.at("content"), "say");
    }
  }
}

TEST_F(AnswerTest, AFailureIsAnErrorAndNoEnd) {
  Answer answer(head_, *tokenizer_, {.stream = true});
  ApiError error{.message = "gone", .type = "t", .code = "peer_lost"};
  EXPECT_EQ(answer.Fail(error),
            "data: {\"error\":{\"message\":\"gone\",\"type\":\"t\",\"param\":null,"
            "\"code\":\"peer_lost\"}}\n\n");
}

}  // namespace
}  // namespace expertmesh::gateway
