#include "cli/eval/eval_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "cli/eval/chat_answer.h"
#include "cli/eval/forced_run.h"
#include "services/base/status.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::cli {
namespace {

using base::Reason;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(EvalInputTest, ReadsAQuestion) {
  const auto question = ParseQuestion(
      R"({"prompt": "What?", "answer": "That.", "entity": "France", "relation": "capital",
          "phrasing": 3, "held_out": true, "more": [1]})");
  ASSERT_TRUE(question.ok()) << question.status();
  EXPECT_EQ(question->prompt, "What?");
  EXPECT_EQ(question->answer, "That.");
  EXPECT_EQ(question->entity, "France");
  EXPECT_EQ(question->relation, "capital");
  EXPECT_EQ(question->phrasing, "3");
  EXPECT_TRUE(question->held_out);
  EXPECT_FALSE(ParseQuestion(R"({"prompt": "", "answer": ""})")->held_out);
  EXPECT_EQ(*ParsePrompt(R"({"prompt": "x"})"), "x");
}

TEST(EvalInputTest, ReadsTokensAndWeights) {
  EXPECT_THAT(ParseScoredText(R"({"tokens": [1, 2, 3]})")->weights, ElementsAre(1, 1, 1));
  const auto text = ParseScoredText(R"({"tokens": [1, 2, 3], "weights": [0, 1, 0.5]})");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(text->tokens, ElementsAre(1, 2, 3));
  EXPECT_THAT(text->weights, ElementsAre(0, 1, 0.5));
}

TEST(EvalInputTest, RefusesWhatIsWrong) {
  for (const char* line :
       {"", "[]", "{", "{}", R"({"prompt": "x"})", R"({"answer": "x"})",
        R"({"prompt": [], "answer": "x"})", R"({"prompt": "x", "answer": "y", "held_out": 1})"}) {
    EXPECT_EQ(base::ReasonOf(ParseQuestion(line).status()), Reason::kInvalidArgument) << line;
  }
  for (const char* line :
       {"{}", R"({"tokens": 1})", R"({"tokens": [1]})", R"({"tokens": [1, -1]})",
        R"({"tokens": [1, 4294967296]})", R"({"tokens": [1, 2.5]})",
        R"({"tokens": [1, 2], "weights": [1]})", R"({"tokens": [1, 2], "weights": [1, 2]})",
        R"({"tokens": [1, 2], "weights": [1, -0.1]})", R"({"tokens": [1, 2], "weights": "1"})"}) {
    EXPECT_EQ(base::ReasonOf(ParseScoredText(line).status()), Reason::kInvalidArgument) << line;
  }
}

TEST(EvalInputTest, ErrorsNameFileAndLine) {
  const test_support::TempDir dir;
  test_support::WriteFile(dir / "q", "{\"prompt\": \"x\", \"answer\": \"y\"}\n\n{}\n");
  const absl::Status status = ReadQuestions(dir / "q").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr(dir / "q: line 3: key \"prompt\""));
  test_support::WriteFile(dir / "empty", "\n");
  EXPECT_EQ(base::ReasonOf(ReadPrompts(dir / "empty").status()), Reason::kInvalidArgument);
  EXPECT_EQ(base::ReasonOf(ReadPrompts(dir / "nowhere").status()), Reason::kInvalidArgument);
}

TEST(EvalInputTest, AReportIsWrittenWholeOrNotAtAll) {
  const test_support::TempDir dir;
  ASSERT_TRUE(WriteReport(dir / "r.json", "{}\n").ok());
  EXPECT_EQ(test_support::ReadFile(dir / "r.json"), "{}\n");
  EXPECT_FALSE(WriteReport(dir / "no/r.json", "{}").ok());
}

TEST(ChatAnswerTest, TakesTheFirstChoiceAndTheOnlyModel) {
  EXPECT_EQ(*AnswerOfCompletion(R"({"choices": [{"message": {"content": "Hi."}}]})"), "Hi.");
  EXPECT_EQ(*AnswerOfCompletion(R"({"choices": [{"message": {"content": null}}]})"), "");
  for (const char* body : {"", "{}", R"({"choices": []})", R"({"choices": [1]})",
                           R"({"choices": [{"message": {"content": 1}}]})"}) {
    EXPECT_FALSE(AnswerOfCompletion(body).ok()) << body;
  }
  EXPECT_EQ(*OnlyModelOf(R"({"data": [{"id": "demo"}]})"), "demo");
  EXPECT_EQ(base::ReasonOf(OnlyModelOf(R"({"data": [{"id": "a"}, {"id": "b"}]})").status()),
            Reason::kInvalidArgument);
  EXPECT_FALSE(OnlyModelOf(R"({"data": []})").ok());
  EXPECT_EQ(ErrorTextOf(R"({"error": {"message": "too long"}})"), "too long");
  EXPECT_EQ(ErrorTextOf("<html>"), "<html>");
}

TEST(ForcedRequestTest, ForcesFromTheFirstToTheLastTokenWithAWeight) {
  const auto forced = RequestOf({{5, 6, 7, 8, 9}, {1, 0, 1, 0.5, 0}});
  ASSERT_TRUE(forced.ok()) << forced.status();
  EXPECT_EQ(forced->first, 2u);
  EXPECT_THAT(forced->request.segments(0).tokens().ids(), ElementsAre(5, 6));
  EXPECT_THAT(forced->request.debug().forced_tokens(), ElementsAre(7, 8));
  EXPECT_EQ(forced->request.max_tokens(), 2u);
  EXPECT_TRUE(forced->request.debug().bypass_prefix_cache());
  EXPECT_EQ(base::ReasonOf(RequestOf({{5, 6}, {1, 0}}).status()), Reason::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::cli
