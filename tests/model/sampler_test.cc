// Sampling is a pure function of logits, parameters and one uniform number.
#include "model/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace expertmesh::model {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Sampler, GreedyTakesTheLargestAndOfEqualsTheLowestId) {
  const std::vector<float> logits = {1, 5, 5, -2};
  const SampledToken token = Sample(logits, {.temperature = 0}, 0.9f, {});
  EXPECT_EQ(token.id, 1u);
  double sum = 0;
  for (const float l : logits) sum += std::exp(l - 5.0);
  EXPECT_NEAR(token.logprob, -std::log(sum), 1e-6);
}

TEST(Sampler, MaskedIdsAreNeverChosenButCountInTheLogprob) {
  const std::vector<float> logits = {9, 1, 2};
  const std::vector<bool> masked = {true};
  EXPECT_EQ(Sample(logits, {.temperature = 0}, 0, masked).id, 2u);
  for (float u = 0; u < 1; u += 0.01f) EXPECT_NE(Sample(logits, {}, u, masked).id, 0u);
  EXPECT_LT(Sample(logits, {.temperature = 0}, 0, masked).logprob, -6.9f);
}

TEST(Sampler, NumbersThatAreNoneGiveNoToken) {
  EXPECT_EQ(Sample(std::vector<float>{1, std::nanf("")}, {}, 0.5f, {}).id, UINT32_MAX);
  EXPECT_EQ(Sample(std::vector<float>{1, kInfinity}, {.temperature = 0}, 0.5f, {}).id, UINT32_MAX);
  EXPECT_EQ(Sample(std::vector<float>{1, 2}, {}, 0.5f, {true, true}).id, UINT32_MAX);
  EXPECT_EQ(Sample(std::vector<float>{-kInfinity, 2}, {}, 0.0f, {}).id, 1u);
}

TEST(Sampler, NumbersThatAreNoneGiveNoLogprob) {
  for (const float bad : {std::nanf(""), kInfinity}) {
    EXPECT_TRUE(std::isnan(LogprobOf(std::vector<float>{1, bad}, 0))) << bad;
  }
  EXPECT_EQ(LogprobOf(std::vector<float>{-kInfinity, 2}, 1), 0.0f);
}

TEST(Sampler, DrawsInProportion) {
  const std::vector<float> logits = {0.0f, std::log(3.0f), std::log(6.0f)};
  std::vector<int> counts(3);
  for (int i = 0; i < 1000; ++i)
    ++counts[Sample(logits, {}, static_cast<float>(i) / 1000.0f, {}).id];
  EXPECT_NEAR(counts[0], 100, 2);
  EXPECT_NEAR(counts[1], 300, 2);
  EXPECT_NEAR(counts[2], 600, 2);
}

TEST(Sampler, TemperatureSharpens) {
  const std::vector<float> logits = {0.0f, 1.0f};
  int ones = 0;
  for (int i = 0; i < 1000; ++i) {
    ones += static_cast<int>(
        Sample(logits, {.temperature = 0.5f}, static_cast<float>(i) / 1000.0f, {}).id);
  }
  EXPECT_NEAR(ones, 1000 / (1 + std::exp(-2.0)), 2);
  EXPECT_EQ(Sample(logits, {.temperature = 1e-30f}, 0.999f, {}).id, 1u);
}

TEST(Sampler, TopKKeepsTheLikeliestAndBreaksTiesById) {
  const std::vector<float> logits = {2, 3, 3, 3, 1};
  std::set<uint32_t> seen;
  for (int i = 0; i < 500; ++i) {
    seen.insert(Sample(logits, {.top_k = 2}, static_cast<float>(i) / 500.0f, {}).id);
  }
  EXPECT_EQ(seen, (std::set<uint32_t>{1, 2}));
  EXPECT_EQ(Sample(logits, {.top_k = 1}, 0.99f, {}).id, 1u);
  EXPECT_LT(Sample(logits, {.top_k = 99}, 0.9999f, {}).id, 5u) << "more than there are";
}

TEST(Sampler, TopPKeepsTheShortestPrefix) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.15f),
                                     std::log(0.25f)};
  const auto reachable = [&](const SamplingParams& params) {
    std::set<uint32_t> seen;
    for (int i = 0; i < 1000; ++i)
      seen.insert(Sample(logits, params, static_cast<float>(i) / 1000.0f, {}).id);
    return seen;
  };
  EXPECT_EQ(reachable({.top_p = 0.45f}), (std::set<uint32_t>{1}));
  EXPECT_EQ(reachable({.top_p = 0.7f}), (std::set<uint32_t>{1, 3}));
  EXPECT_EQ(reachable({.top_p = 0.8f}), (std::set<uint32_t>{1, 2, 3}));
  EXPECT_EQ(reachable({.top_p = 1.0f}), (std::set<uint32_t>{0, 1, 2, 3}));
  EXPECT_EQ(reachable({.top_k = 3, .top_p = 0.55f}), (std::set<uint32_t>{1}))
      << "0.5 of 0.9 is 0.556";
  EXPECT_EQ(reachable({.top_p = 1e-9f}), (std::set<uint32_t>{1})) << "never empty";
}

TEST(Sampler, UniformIsAFunctionOfItsArguments) {
  EXPECT_EQ(UniformOf(1, 2, 3), UniformOf(1, 2, 3));
  std::set<float> seen;
  for (uint64_t position = 0; position < 100; ++position) {
    const float u = UniformOf(1ull << 40, 0, position);
    EXPECT_GE(u, 0.0f);
    EXPECT_LT(u, 1.0f);
    seen.insert(u);
  }
  EXPECT_GT(seen.size(), 95u);
  EXPECT_NE(UniformOf(1, 0, 0), UniformOf(1ull << 32, 0, 0));
  EXPECT_NE(UniformOf(1, 0, 5), UniformOf(1, 1, 5));
  EXPECT_NE(UniformOf(1, 0, 5), UniformOf(1, 0, 5 + (1ull << 32)));
}

TEST(Sampler, TruncatedSamplingOverManyIdsMatchesTheFullOne) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> logits(3000);
  for (float& l : logits) l = 4 * normal(random);
  const SampledToken full = Sample(logits, {.top_p = 0.9999999f}, 0.0f, {});
  const SampledToken greedy = Sample(logits, {.temperature = 0}, 0.0f, {});
  EXPECT_EQ(full.id, greedy.id) << "likeliest first, and u = 0 takes the first";
  EXPECT_EQ(full.logprob, greedy.logprob);
}

TEST(Sampler, MinPDropsWhatIsFarBelowTheLikeliest) {
  const std::vector<float> logits = {0.0f, -1.0f, -3.0f};  // shares of the likeliest: 1, 0.37, 0.05
  SamplingParams params;
  params.min_p = 0.3f;
  EXPECT_EQ(Sample(logits, params, 0.999f, {}).id, 1u);
  params.min_p = 0.5f;
  EXPECT_EQ(Sample(logits, params, 0.999f, {}).id, 0u);
  params.min_p = 0.0f;
  EXPECT_EQ(Sample(logits, params, 0.999f, {}).id, 2u);
}

TEST(Sampler, PenaltiesCountTheAnswerAndRepetitionThePromptToo) {
  SamplingParams params;
  EXPECT_FALSE(params.adjusts());
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  EXPECT_TRUE(params.adjusts());
  const std::vector<uint32_t> prompt = {0, 0, 1};
  const std::vector<uint32_t> generated = {1, 2, 2};
  std::vector<float> logits = {1, 1, 1, 1};
  AdjustLogits(logits, params, prompt, generated);
  EXPECT_EQ(logits, (std::vector<float>{1, 0.25f, 0, 1}));
  params = {};
  params.repetition_penalty = 2.0f;
  params.logit_bias = {{3, -1.5f}};
  logits = {1, -1, 4, 1};
  AdjustLogits(logits, params, prompt, generated);
  EXPECT_EQ(logits, (std::vector<float>{0.5f, -2, 2, -0.5f}));
}

TEST(Sampler, TheLikeliestTokensAreSortedAndNormalised) {
  const std::vector<float> logits = {0.0f, 2.0f, 2.0f, 1.0f};
  const auto all = LikeliestTokens(logits, 9);
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].id, 1u);
  EXPECT_EQ(all[1].id, 2u);
  EXPECT_EQ(all[2].id, 3u);
  double sum = 0;
  for (const TokenLogprob& token : all) {
    sum += std::exp(static_cast<double>(token.logprob));
    EXPECT_EQ(token.logprob, LogprobOf(logits, token.id));
  }
  EXPECT_NEAR(sum, 1.0, 1e-6);
  EXPECT_EQ(LikeliestTokens(logits, 2).size(), 2u);
}

}  // namespace
}  // namespace expertmesh::model
