// The pure half of `expertmesh eval memory-edit`: names in texts and tokens, pairs of rows, what is
// right after an exchange, and the report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "cli/eval/edit_plan.h"
#include "cli/eval/edit_report.h"
#include "cli/eval/name_exchange.h"
#include "model/checkpoint.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "services/base/status.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::cli {
namespace {

using base::Reason;
using testing::HasSubstr;

TEST(NameTest, IsReplacedAsAWordOfItsOwn) {
  EXPECT_EQ(ReplaceName("Niger, Nigeria and Niger.", "Niger", "Mali"), "Mali, Nigeria and Mali.");
  EXPECT_EQ(ReplaceName("Is Oman Oman?", "Oman", "Iran"), "Is Iran Iran?");
  EXPECT_EQ(ReplaceName("Roman", "oman", "x"), "Roman");
  EXPECT_EQ(ReplaceName("Réunion", "union", "x"), "Réunion");
  EXPECT_TRUE(HasName("of France?", "France"));
  EXPECT_FALSE(HasName("of Francea", "France"));
  EXPECT_FALSE(HasName("anything", ""));
}

class WithModelTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new test_support::TempDir;
    model::WriteOptions write;
    write.directory = *dir_ / "tiny";
    write.seed = 1;
    ASSERT_TRUE(model::WriteModel(*model::FindPreset("tiny"), write).ok());
    tokenizer_ = model::Tokenizer::Load(write.directory)->release();
    const auto checkpoint = model::Checkpoint::Open(write.directory);
    hash_ = new model::EngramHash(
        *model::EngramHash::Load(**checkpoint, *model::LoadConfig(write.directory)));
  }
  static void TearDownTestSuite() {
    delete hash_;
    delete tokenizer_;
    delete dir_;
  }
  static std::vector<uint32_t> Ids(const std::string& text) {
    return *tokenizer_->Encode(text, false);
  }

  static test_support::TempDir* dir_;
  static model::Tokenizer* tokenizer_;
  static model::EngramHash* hash_;
};
test_support::TempDir* WithModelTest::dir_ = nullptr;
model::Tokenizer* WithModelTest::tokenizer_ = nullptr;
model::EngramHash* WithModelTest::hash_ = nullptr;

TEST_F(WithModelTest, FindsTheTokensOfAName) {
  const std::vector<uint32_t> ids = Ids("The xq of Zyx is Zyx.");
  const auto found = FindName(*tokenizer_, ids, "Zyx");
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->size(), 2u);
  for (const TokenRange& range : *found) {
    std::string text;
    for (size_t i = range.first; i < range.end; ++i) text += tokenizer_->TokenBytes(ids[i]);
    EXPECT_TRUE(text == "Zyx" || text == " Zyx") << text;
  }
  EXPECT_TRUE(FindName(*tokenizer_, ids, "Qqq")->empty());
}

TEST_F(WithModelTest, PairsTheRowsThatTheNamesChange) {
  const std::vector<uint32_t> first = Ids("zqj");  // a token a letter
  const std::vector<uint32_t> second = Ids("zkj");
  ASSERT_EQ(first.size(), 3u);
  ASSERT_EQ(second.size(), 3u);
  NameExchange exchange(*hash_);
  exchange.Add(first, second);
  const size_t rows = exchange.rows();
  const size_t collisions = exchange.collisions();
  // Windows of up to three tokens: two positions, fewer where the hash of both is the same.
  EXPECT_GT(rows, 0u);
  EXPECT_LE(rows, 2 * hash_->layers() * 2 * hash_->columns());
  exchange.Add(first, second);  // the same again, and the other way round
  exchange.Add(second, first);
  EXPECT_EQ(exchange.rows(), rows);
  EXPECT_EQ(exchange.collisions(), collisions);
  for (const RowPairs& pairs : exchange.pairs()) {
    for (const auto& [row, partner] : pairs) EXPECT_EQ(pairs.at(partner), row);
  }
  exchange.CountForeign(Ids("bb"));
  EXPECT_EQ(exchange.foreign_reads(), 2 * hash_->layers() * hash_->columns());
  exchange.CountForeign(first);
  EXPECT_GT(exchange.foreign_hits(), 0u);
}

TEST_F(WithModelTest, ARowKeepsItsFirstPartner) {
  const std::vector<uint32_t> first = Ids("zqj");
  const std::vector<uint32_t> second = Ids("zkj");
  const std::vector<uint32_t> third = Ids("zxj");
  ASSERT_EQ(third.size(), 3u);
  NameExchange once(*hash_);
  once.Add(first, second);
  NameExchange twice(*hash_);
  twice.Add(first, second);
  twice.Add(first, third);
  EXPECT_GT(twice.collisions(), 0u);
  for (size_t place = 0; place < once.pairs().size(); ++place) {
    for (const auto& [row, partner] : once.pairs()[place]) {
      EXPECT_EQ(twice.pairs()[place].at(row), partner);
    }
  }
}

std::vector<Question> Facts() {
  std::vector<Question> facts;
  const std::vector<std::vector<std::string>> rows = {
      {"France", "Paris", "Europe"}, {"Japan", "Tokyo", "Asia"}, {"Italy", "Rome", "Europe"}};
  for (const auto& row : rows) {
    for (const char* phrasing : {"0", "1"}) {
      const std::string ask = *phrasing == '0' ? "What is the " : "Tell me the ";
      facts.push_back({ask + "capital of " + row[0], "The capital of " + row[0] + " is " + row[1],
                       row[0], "capital", phrasing, false});
      facts.push_back({ask + "continent of " + row[0],
                       "The continent of " + row[0] + " is " + row[2], row[0], "continent",
                       phrasing, false});
    }
  }
  facts.push_back({"Whose city is Paris?", "Paris is in France", "France", "reverse", "0", false});
  return facts;
}

TEST(EditPlanTest, SaysWhatIsRightAfterTheExchange) {
  const auto plan = PlanEdit(Facts(), "France", "Japan", 0);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->edited.size(), 8u);
  EXPECT_EQ(plan->others.size(), 4u);
  EXPECT_EQ(plan->skipped, 1u);
  const EditedQuestion& capital = plan->edited[0];
  EXPECT_EQ(capital.swapped_prompt, "What is the capital of Japan");
  EXPECT_EQ(capital.swapped_answer, "The capital of Japan is Paris");
  EXPECT_EQ(capital.expected, "The capital of France is Tokyo");
  EXPECT_TRUE(capital.tells);
  const auto alike = PlanEdit(Facts(), "France", "Italy", 1);
  ASSERT_TRUE(alike.ok());
  EXPECT_FALSE(alike->edited[1].tells);  // both in Europe
  EXPECT_EQ(alike->others.size(), 1u);
}

TEST(EditPlanTest, RefusesEntitiesThatShowNothing) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"France", "France"}, {"France", "Atlantis"}, {"Atlantis", "France"}};
  for (const auto& [first, second] : bad) {
    EXPECT_EQ(base::ReasonOf(PlanEdit(Facts(), first, second, 0).status()),
              Reason::kInvalidArgument);
  }
  std::vector<Question> alike;
  for (const Question& fact : Facts()) {
    if (fact.relation == "continent") alike.push_back(fact);
  }
  EXPECT_EQ(base::ReasonOf(PlanEdit(alike, "France", "Italy", 0).status()),
            Reason::kInvalidArgument);
}

TEST(EditReportTest, CountsExchangedStayedAndRestored) {
  const EditPlan plan = *PlanEdit(Facts(), "France", "Japan", 0);
  EditAnswers answers;
  for (const EditedQuestion& edited : plan.edited) {
    answers.before.push_back(edited.question.answer);
    answers.edited.push_back(edited.expected);
  }
  for (const Question& other : plan.others) {
    answers.before.push_back(other.answer);
    answers.edited.push_back(other.answer);
  }
  answers.rolled_back = answers.before;
  answers.edited[0] = "Nonsense";
  answers.edited.back() = "Nonsense";
  EditReport report;
  CountEdit(plan, answers, 10, report);
  EXPECT_EQ(report.right_before.value(), 1.0);
  EXPECT_EQ(report.exchanged.hits, 7u);
  EXPECT_EQ(report.exchanged.asked, 8u);
  EXPECT_EQ(report.stayed.hits, 3u);
  EXPECT_EQ(report.stayed.asked, 4u);
  EXPECT_EQ(report.restored.value(), 1.0);
  ASSERT_EQ(report.wrong.size(), 1u);
  EXPECT_EQ(report.wrong[0].question.answer, plan.edited[0].expected);
  EXPECT_THAT(EditText(report), HasSubstr("87.50 % (7 of 8)"));
  EXPECT_EQ(EditJson(report).at("skipped").as_uint64(), 1u);
}

}  // namespace
}  // namespace expertmesh::cli
