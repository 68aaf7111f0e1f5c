#include "gateway/core/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "gateway/core/openai_response.h"
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

  static std::unique_ptr<Answer> Make(const AnswerHead& head, const Answer::Options& options) {
    return std::make_unique<Answer>(std::make_unique<OpenAiFormat>(head), *tokenizer_, options);
  }
  // The end of an answer of one choice.
  static std::string End(Answer& answer, bool length) {
    const std::string last = answer.EndChoice(0, length);
    return last + answer.Finish();
  }

  static inline std::unique_ptr<model::Tokenizer> tokenizer_;
  const AnswerHead head_{.id = "chatcmpl-1", .created = 5, .model = "m", .fingerprint = "fp_0"};
};

TEST_F(AnswerTest, StreamOfAChat) {
  const auto made = Make(head_, {.stream = true});
  Answer& answer = *made;
  answer.SetPrompt(7, 2);
  std::string sse = answer.Begin();
  const std::vector<uint32_t> ids = Ids("Grüße 😀!");
  for (const uint32_t id : ids) sse += answer.OnToken(0, {id});
  sse += answer.OnToken(0, {Id(model::special::kEos)});
  sse += End(answer, false);

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
  const auto made = Make(head, {.stream = true});
  Answer& answer = *made;
  answer.SetPrompt(7, 0);
  answer.OnToken(0, {Ids("a").front()});
  const std::vector<json::value> events = Events(End(answer, true));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_TRUE(events[0].at("usage").is_null());
  EXPECT_TRUE(events[1].at("choices").as_array().empty());
  EXPECT_EQ(events[1].at("usage").at("total_tokens"), 8);
  EXPECT_EQ(events[2], json::value("[DONE]"));
}

TEST_F(AnswerTest, WholeAnswerSaysNothingBeforeItsEnd) {
  const auto made = Make(head_, {});
  Answer& answer = *made;
  EXPECT_EQ(answer.Begin(), "");
  for (const uint32_t id : Ids("one two")) EXPECT_EQ(answer.OnToken(0, {id}), "");
  const json::value body = json::parse(End(answer, true));
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content"), "one two");
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(body.at("object"), "chat.completion");
}

TEST_F(AnswerTest, StopStringEndsTheAnswer) {
  for (const bool stream : {false, true}) {
    const auto made = Make(head_, {.stream = stream, .decode = {.stop = {"STOP"}}});
    Answer& answer = *made;
    std::string out = answer.Begin();
    uint32_t taken = 0;
    for (const uint32_t id : Ids("before STOP behind")) {
      if (answer.ended(0)) break;
      out += answer.OnToken(0, {id});
      ++taken;
    }
    EXPECT_TRUE(answer.ended(0));
    EXPECT_EQ(answer.OnToken(0, {Ids("x").front()}), "");
    out += End(answer, true);
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
  const auto made = Make(head_, {.stream = true, .decode = {.stop = {"abc"}}});
  Answer& answer = *made;
  std::string sse = answer.Begin();
  for (const uint32_t id : Ids("xab")) sse += answer.OnToken(0, {id});
  sse += End(answer, false);
  EXPECT_EQ(Joined(Events(sse), "content"), "xab");
}

TEST_F(AnswerTest, AnOpenCharacterAtTheEndIsReplaced) {
  const auto made = Make(head_, {});
  Answer& answer = *made;
  const std::vector<uint32_t> ids = Ids("𝔘");
  ASSERT_GT(ids.size(), 1u);
  answer.OnToken(0, {ids.front()});
  const json::value body = json::parse(End(answer, true));
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content"), "\ufffd");
}

TEST_F(AnswerTest, ReasoningUpToItsEndMark) {
  const uint32_t end = Id(model::special::kEndThink);
  for (const bool stream : {true, false}) {
    AnswerHead head = head_;
    head.thinking = true;
    const auto made =
        Make(head, {.stream = stream, .decode = {.stop = {"STOP"}, .end_of_reasoning = end}});
    Answer& answer = *made;
    std::string out = answer.Begin();
    const std::vector<uint32_t> thought = Ids("think STOP");
    for (const uint32_t id : thought) out += answer.OnToken(0, {id});
    out += answer.OnToken(0, {end});
    EXPECT_FALSE(answer.ended(0));
    for (const uint32_t id : Ids("say")) out += answer.OnToken(0, {id});
    out += End(answer, false);
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

TEST_F(AnswerTest, ChoicesKeepTheirTextsApart) {
  for (const bool stream : {true, false}) {
    AnswerHead head = head_;
    head.choices = 2;
    const auto answer = Make(head, {.stream = stream, .choices = 2});
    answer->SetPrompt(5, 0);
    std::string out = answer->Begin();
    const std::vector<uint32_t> first = Ids("one");
    const std::vector<uint32_t> second = Ids("other");
    for (size_t i = 0; i < std::max(first.size(), second.size()); ++i) {
      if (i < first.size()) out += answer->OnToken(0, {first[i]});
      if (i < second.size()) out += answer->OnToken(1, {second[i]});
    }
    out += answer->EndChoice(1, true);
    out += answer->EndChoice(0, false);
    out += answer->Finish();
    EXPECT_EQ(answer->usage().completion_tokens, first.size() + second.size());
    std::map<int64_t, std::string> texts;
    std::map<int64_t, std::string> reasons;
    const std::vector<json::value> bodies =
        stream ? Events(out) : std::vector<json::value>{json::parse(out)};
    for (const json::value& body : bodies) {
      if (!body.is_object()) continue;
      for (const json::value& choice : body.at("choices").as_array()) {
        const int64_t index = choice.at("index").as_int64();
        const json::object& text = choice.at(stream ? "delta" : "message").as_object();
        if (text.contains("content")) texts[index] += text.at("content").as_string().c_str();
        const json::value& reason = choice.at("finish_reason");
        if (reason.is_string()) reasons[index] = reason.as_string().c_str();
      }
    }
    EXPECT_EQ(texts[0], "one");
    EXPECT_EQ(texts[1], "other");
    EXPECT_EQ(reasons[0], "stop");
    EXPECT_EQ(reasons[1], "length");
  }
}

TEST_F(AnswerTest, LogprobsStandBesideTheirText) {
  AnswerHead head = head_;
  head.logprobs = true;
  const auto answer = Make(head, {.decode = {.logprobs = true}});
  const std::vector<uint32_t> ids = Ids("a😀");
  for (const uint32_t id : ids) answer->OnToken(0, {id, -0.5f, {{id, -0.5f}, {ids[0], -2.0f}}});
  answer->OnToken(0, {Id(model::special::kEos), -0.1f, {}});
  const json::value body = json::parse(End(*answer, false));
  const json::value& choice = body.at("choices").at(0);
  const json::array& content = choice.at("logprobs").at("content").as_array();
  ASSERT_EQ(content.size(), ids.size()) << "the end token is not text";
  std::string bytes;
  for (const json::value& token : content) {
    EXPECT_EQ(token.at("logprob").as_double(), -0.5);
    EXPECT_EQ(token.at("top_logprobs").as_array().size(), 2u);
    for (const json::value& byte : token.at("bytes").as_array()) {
      bytes.push_back(static_cast<char>(byte.to_number<int>()));
    }
  }
  EXPECT_EQ(bytes, "a😀");
  EXPECT_EQ(content[0].at("token"), "a");
}

TEST_F(AnswerTest, CallsHaveIdsAndTheFinishReason) {
  const std::string text =
      "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\":1}"
      "<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
      "<｜tool▁calls▁end｜>";
  for (const bool parallel : {true, false}) {
    for (const bool stream : {true, false}) {
      const auto answer = Make(head_, {.stream = stream,
                                       .call_prefix = "call_x",
                                       .decode = {.encoding = model::ChatEncoding::kV31,
                                                  .tools = true,
                                                  .parallel_calls = parallel}});
      std::string out = answer->Begin();
      for (const uint32_t id : Ids(text)) {
        if (!answer->ended(0)) out += answer->OnToken(0, {id});
      }
      EXPECT_EQ(answer->ended(0), !parallel);
      out += End(*answer, false);
      EXPECT_NE(out.find(R"("id":"call_x_0_0","type":"function","function":{"name":"f",)"
                         R"("arguments":"{\"a\":1}"})"),
                std::string::npos)
          << out;
      EXPECT_EQ(out.find("call_x_0_1") != std::string::npos, parallel);
      EXPECT_NE(out.find(R"("finish_reason":"tool_calls")"), std::string::npos);
      EXPECT_EQ(out.find("｜tool"), std::string::npos);
      EXPECT_EQ(out.find(R"({"index":1,"id":"call_x_0_1")") != std::string::npos,
                parallel && stream);
    }
  }
}

TEST_F(AnswerTest, AFailureIsAnErrorAndNoEnd) {
  const auto made = Make(head_, {.stream = true});
  Answer& answer = *made;
  ApiError error{.message = "gone", .type = "t", .code = "peer_lost"};
  EXPECT_EQ(answer.Fail(error),
            "data: {\"error\":{\"message\":\"gone\",\"type\":\"t\",\"param\":null,"
            "\"code\":\"peer_lost\"}}\n\n");
}

}  // namespace
}  // namespace expertmesh::gateway
