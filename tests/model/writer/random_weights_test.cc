#include "model/writer/random_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "services/base/hash.h"
#include "services/base/random.h"

namespace expertmesh::model {
namespace {

constexpr uint64_t kSeed = 0x123456789ABCDEFull;

std::vector<float> Draw(std::string_view tensor, size_t count, uint64_t seed = kSeed) {
  std::vector<float> values(count);
  FillRandom(seed, tensor, {0.0, 1.0}, 0, values);
  return values;
}

TEST(FillRandom, IsBoxMullerOfPhilox) {
  const std::vector<float> values = Draw("t", 4000);
  const uint64_t name = base::Hash64(std::string_view("t"));
  for (uint32_t block = 0; block < 1000; ++block) {
    const auto bits =
        base::Philox({static_cast<uint32_t>(kSeed), static_cast<uint32_t>(kSeed >> 32)},
                     {block, 0, static_cast<uint32_t>(name), static_cast<uint32_t>(name >> 32)});
    for (size_t pair = 0; pair < 2; ++pair) {
      const double radius = std::sqrt(-2.0 * std::log((bits[2 * pair] + 0.5) / 4294967296.0));
      const double angle = 2.0 * std::numbers::pi * (bits[2 * pair + 1] + 0.5) / 4294967296.0;
      ASSERT_NEAR(values[4 * block + 2 * pair], radius * std::cos(angle), 1e-6);
      ASSERT_NEAR(values[4 * block + 2 * pair + 1], radius * std::sin(angle), 1e-6);
    }
  }
}

// A seed names a model: these bytes must not change with compiler, libm or machine.
TEST(FillRandom, GivesTheSameBytesOnEveryMachine) {
  const std::vector<float> values = Draw("golden", 10000);
  EXPECT_EQ(base::Hash64(std::as_bytes(std::span(values))), 9526344097669296684u);
}

TEST(FillRandom, HasTheMomentsAndTailsOfANormal) {
  const std::vector<float> values = Draw("moments", 1 << 20);
  double sum = 0, square = 0, fourth = 0;
  size_t beyond_three = 0;
  for (const double x : values) {
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
    beyond_three += std::abs(x) > 3.0;
  }
  const auto n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0.0, 0.005);
  EXPECT_NEAR(square / n, 1.0, 0.01);
  EXPECT_NEAR(fourth / n, 3.0, 0.05);
  EXPECT_NEAR(static_cast<double>(beyond_three) / n, 0.0026998, 0.0003);
}

TEST(FillRandom, AnyPartIsAPartOfTheWhole) {
  const std::vector<float> whole = Draw("parts", 103);
  for (size_t first = 0; first < whole.size(); first += 4) {
    std::vector<float> part(std::min<size_t>(9, whole.size() - first));
    FillRandom(kSeed, "parts", {0.0, 1.0}, first, part);
    for (size_t i = 0; i < part.size(); ++i) ASSERT_EQ(part[i], whole[first + i]);
  }
}

TEST(FillRandom, DependsOnSeedAndName) {
  EXPECT_NE(Draw("a", 8), Draw("b", 8));
  EXPECT_NE(Draw("a", 8), Draw("a", 8, kSeed + 1));
  EXPECT_NE(Draw("a", 8), Draw("a", 8, kSeed ^ (uint64_t{1} << 63)));
}

TEST(DistributionOf, FollowsTheModelFamilyPage) {
  const TensorSpec norm{"model.layers.0.self_attn.q_a_layernorm.weight", {96}, false, "mla"};
  const TensorSpec bias{"model.layers.1.mlp.gate.e_score_correction_bias", {32}, true, "gates"};
  const TensorSpec linear{"model.layers.0.mlp.down_proj.weight", {64, 100}, false, "dense_ffn"};
  const TensorSpec embedding{"model.embed_tokens.weight", {512, 64}, false, "embedding"};
  const auto check = [](const TensorSpec& spec, WeightStyle style, double mean, double scale) {
    EXPECT_EQ(DistributionOf(spec, style).mean, mean) << spec.name;
    EXPECT_EQ(DistributionOf(spec, style).scale, scale) << spec.name;
  };
  check(norm, WeightStyle::kSpread, 1.0, 0.1);
  check(bias, WeightStyle::kSpread, 0.0, 0.1);
  check(linear, WeightStyle::kSpread, 0.0, 0.1);  // 1/sqrt(100)
  check(embedding, WeightStyle::kSpread, 0.0, 1.0);
  check(norm, WeightStyle::kFlat, 1.0, 0.0);
  check(bias, WeightStyle::kFlat, 0.0, 0.0);
  check(linear, WeightStyle::kFlat, 0.0, 0.02);
  check(embedding, WeightStyle::kFlat, 0.0, 0.02);
}

}  // namespace
}  // namespace expertmesh::model
