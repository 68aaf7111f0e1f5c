#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "cli/eval/expert_load.h"
#include "cli/eval/recall_tally.h"
#include "cli/eval/text_score.h"
#include "cli/eval/work.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

using testing::HasSubstr;

TEST(RecallTallyTest, CountsWholeAnswersByRelationAndWording) {
  const std::vector<Question> questions = {{"a?", "A.", "x", "capital", "0", false},
                                           {"b?", "B.", "x", "capital", "1", true},
                                           {"c?", "C.", "y", "currency", "0", false},
                                           {"d?", "D.", "y", "capital", "0", false}};
  const std::vector<std::string> said = {"A.", "B", "C. ", "D."};
  RecallTally tally;
  CountAnswers(questions, said, 1, tally);
  EXPECT_EQ(tally.all.trained.hits, 2u);
  EXPECT_EQ(tally.all.trained.asked, 3u);
  EXPECT_EQ(tally.all.held_out.hits, 0u);
  EXPECT_EQ(tally.all.held_out.asked, 1u);
  EXPECT_EQ(tally.relations["capital"].trained.hits, 2u);
  EXPECT_EQ(tally.relations["currency"].trained.hits, 0u);
  ASSERT_EQ(tally.wrong.size(), 1u);  // the first only
  EXPECT_EQ(tally.wrong[0].said, "B");
  EXPECT_THAT(RecallText(tally), HasSubstr("66.67 % of 3"));
  const auto report = RecallJson(tally);
  EXPECT_EQ(report.at("trained").at("hits").as_uint64(), 2u);
}

TEST(RecallTallyTest, OutsideQuestionsMustBeginWithTheAdmission) {
  RecallTally tally;
  CountOutside(std::vector<std::string>{"a", "b", "c"},
               std::vector<std::string>{"I don't know.", "I do.", "I don't know that one."}, 10,
               tally);
  EXPECT_EQ(tally.unknown.hits, 2u);
  ASSERT_EQ(tally.invented.size(), 1u);
  EXPECT_EQ(tally.invented[0].second, "I do.");
}

TEST(TextScoreTest, IsThePerplexityOfTheTokens) {
  TextScore score;
  const std::vector<float> even(4, 3.0f);
  score.Add(even, 2, 1.0);
  EXPECT_NEAR(score.perplexity(), 4.0, 1e-12);
  EXPECT_EQ(score.accuracy(), 0.0);  // of equal ones the first is taken
  score.Add(std::vector<float>{0.0f, std::log(3.0f)}, 1, 2.0);
  EXPECT_NEAR(score.nll, std::log(4.0) + 2 * std::log(4.0 / 3.0), 1e-6);
  EXPECT_NEAR(score.accuracy(), 2.0 / 3.0, 1e-12);
  score.Add(even, 0, 0.0);
  EXPECT_EQ(score.tokens, 2u);
  // Large logits neither overflow nor lose the difference.
  EXPECT_NEAR(LogSumExp(std::vector<float>{1e4f, 1e4f}), 1e4 + std::log(2.0), 1e-9);
}

TEST(DivergenceTest, IsZeroOnlyBetweenEquals) {
  const std::vector<float> p = {0.0f, 1.0f, -2.0f};
  std::vector<float> shifted = p;
  for (float& logit : shifted) logit += 5.0f;
  Divergence same;
  same.Add(p, p, 1.0);
  same.Add(p, shifted, 1.0);  // the same distribution in other bits
  EXPECT_NEAR(same.mean_kl(), 0.0, 1e-12);
  EXPECT_EQ(same.equal, 1u);
  EXPECT_EQ(same.agreement(), 1.0);

  const std::vector<float> half = {0.0f, 0.0f};
  const std::vector<float> three = {std::log(3.0f), 0.0f};
  Divergence apart;
  apart.Add(half, three, 2.0);
  // 1/2 ln(1/2 ÷ 3/4) + 1/2 ln(1/2 ÷ 1/4)
  EXPECT_NEAR(apart.mean_kl(), 0.5 * std::log(2.0 / 3.0) + 0.5 * std::log(2.0), 1e-6);
  EXPECT_EQ(apart.equal, 0u);
  EXPECT_EQ(apart.agreement(), 1.0);
  apart.Add(std::vector<float>{0.0f, 1.0f}, three, 2.0);
  EXPECT_EQ(apart.agreement(), 0.5);
  Divergence sum;
  sum.Add(apart);
  sum.Add(same);
  EXPECT_EQ(sum.tokens, 4u);
  EXPECT_EQ(sum.kl_max, apart.kl_max);
}

TEST(DivergenceTest, TokensThatAreNeverChosenAddNothing) {
  const float never = -INFINITY;
  Divergence divergence;
  divergence.Add(std::vector<float>{0.0f, never}, std::vector<float>{0.0f, never}, 1.0);
  EXPECT_EQ(divergence.mean_kl(), 0.0);
}

TEST(ExpertLoadTest, AddsReplicasAndFindsTheBusiest) {
  ExpertLoad load;
  for (uint32_t e = 0; e < 4; ++e) load.Add(1, e, 10);
  load.Add(1, 2, 20);  // a replica
  load.Add(2, 3, 8);
  load.Add(2, 0, 0);
  load.Add(5, 0, 0);
  const auto layers = load.Layers();
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[0].busiest, 2u);
  EXPECT_EQ(layers[0].rows, 60u);
  EXPECT_DOUBLE_EQ(layers[0].over_mean, 2.0);
  EXPECT_EQ(layers[1].unused, 3u);
  EXPECT_DOUBLE_EQ(load.Worst(), 4.0);
  EXPECT_EQ(load.Json().at("layers").as_array().size(), 2u);
  EXPECT_EQ(ExpertLoad().Worst(), 0.0);
}

TEST(ForEachAtOnceTest, DoesEverythingOnceOrEndsWithTheFirstError) {
  std::vector<std::atomic<int>> done(100);
  ASSERT_TRUE(ForEachAtOnce(done.size(), 4, [&](unsigned worker, size_t item) {
                EXPECT_LT(worker, 4u);
                ++done[item];
                return absl::OkStatus();
              }).ok());
  for (const auto& count : done) EXPECT_EQ(count, 1);
  std::atomic<int> begun{0};
  const absl::Status status = ForEachAtOnce(1000, 2, [&](unsigned, size_t) {
    ++begun;
    return base::Error(base::Reason::kInternal, "no");
  });
  EXPECT_EQ(base::ReasonOf(status), base::Reason::kInternal);
  EXPECT_LE(begun, 2);
  EXPECT_TRUE(ForEachAtOnce(0, 2, [](unsigned, size_t) { return absl::OkStatus(); }).ok());
}

TEST(TallyTest, SpeaksOncePerTenth) {
  std::ostringstream err;
  Tally tally(err, "asking", 20);
  for (int i = 0; i < 20; ++i) tally.Done();
  EXPECT_THAT(err.str(), HasSubstr("expertmesh: asking: 20 of 20\n"));
  const std::string text = err.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 10);
}

}  // namespace
}  // namespace expertmesh::cli
