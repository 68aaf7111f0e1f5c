// The gate's choice and weights (docs/formats.md §1.6).
#include "model/blocks/gate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/kernels/math.h"

namespace expertmesh::model {
namespace {

struct Choice {
  bool ok = false;
  std::vector<uint16_t> ids;
  std::vector<float> weights;
};

Choice Select(const GateRule& rule, const std::vector<float>& z, const std::vector<float>& bias,
              const std::vector<uint16_t>& forced = {}) {
  Choice c{false, std::vector<uint16_t>(rule.top_k), std::vector<float>(rule.top_k)};
  c.ok = SelectExperts(rule, z.data(), bias.data(), forced, c.ids.data(), c.weights.data());
  return c;
}

using Ids = std::vector<uint16_t>;

TEST(Gate, EqualScoresTakeTheLowestIds) {
  const GateRule rule{.experts = 8, .top_k = 3};
  EXPECT_EQ(Select(rule, std::vector<float>(8, 0.5f), std::vector<float>(8, 0.0f)).ids,
            (Ids{0, 1, 2}));
}

TEST(Gate, MinusZeroEqualsPlusZero) {
  const GateRule rule{.experts = 4, .top_k = 1};
  const std::vector<float> z(4, -200.0f);  // sigmoid is +0
  EXPECT_EQ(Select(rule, z, {-0.0f, 0.0f, 0.0f, 0.0f}).ids, (Ids{0}));
}

TEST(Gate, BiasCountsInTheChoiceOnly) {
  const GateRule rule{.experts = 4, .top_k = 2, .factor = 2.5f};
  const Choice c = Select(rule, {3, 2, 1, 0}, {0, 0, 0, 10});
  ASSERT_TRUE(c.ok);
  EXPECT_EQ(c.ids, (Ids{0, 3}));
  const float s0 = Sigmoid(3);
  const float s3 = Sigmoid(0);
  EXPECT_FLOAT_EQ(c.weights[0], 2.5f * s0 / (s0 + s3));
  EXPECT_FLOAT_EQ(c.weights[1], 2.5f * s3 / (s0 + s3));
}

TEST(Gate, KeepsTheGroupsWithTheTwoLargest) {
  GateRule rule{.experts = 8, .top_k = 2, .groups = 4, .kept_groups = 1};
  // Group 1 has the largest single score, group 2 the largest pair.
  const std::vector<float> z = {0, 0, 4, -9, 3, 3, 0, 0};
  EXPECT_EQ(Select(rule, z, std::vector<float>(8, 0.0f)).ids, (Ids{4, 5}));
  rule.kept_groups = 2;
  EXPECT_EQ(Select(rule, z, std::vector<float>(8, 0.0f)).ids, (Ids{4, 5}))
      << "groups 2 and then 0, whose pair of halves beats group 1";
}

TEST(Gate, AMaskedGroupIsMinusInfinityOrZero) {
  GateRule rule{.experts = 4, .top_k = 2, .groups = 2, .kept_groups = 1};
  const std::vector<float> z(4, 0.0f);
  const std::vector<float> bias = {-0.6f, -0.9f, -0.7f, -1.0f};  // kept scores are negative
  EXPECT_EQ(Select(rule, z, bias).ids, (Ids{0, 1}));
  rule.masked_zero = true;
  EXPECT_EQ(Select(rule, z, bias).ids, (Ids{2, 3}));
}

TEST(Gate, NotANumberIsAnError) {
  const GateRule rule{.experts = 3, .top_k = 1};
  EXPECT_FALSE(Select(rule, {0, std::nanf(""), 1}, {0, 0, 0}).ok);
}

TEST(Gate, ForcedIdsAreSortedAndChecked) {
  const GateRule rule{.experts = 6, .top_k = 2, .normalise = false};
  const Choice c = Select(rule, {0, 1, 2, 3, 4, 5}, std::vector<float>(6, 0.0f), {4, 1});
  ASSERT_TRUE(c.ok);
  EXPECT_EQ(c.ids, (Ids{1, 4}));
  EXPECT_EQ(c.weights[1], Sigmoid(4));
  EXPECT_FALSE(Select(rule, std::vector<float>(6, 0.0f), std::vector<float>(6, 0.0f), {1, 1}).ok);
  EXPECT_FALSE(Select(rule, std::vector<float>(6, 0.0f), std::vector<float>(6, 0.0f), {1, 6}).ok);
  EXPECT_FALSE(
      Select(rule, std::vector<float>(6, 0.0f), std::vector<float>(6, 0.0f), {1, 2, 3}).ok);
}

}  // namespace
}  // namespace expertmesh::model
