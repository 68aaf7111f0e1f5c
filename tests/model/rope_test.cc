// Rope tables against the constants of docs/formats.md §12 and against libm.
#include "model/blocks/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::model {
namespace {

Config Stretched(double theta, uint64_t original, double factor, double beta_fast) {
  Config config = test_support::TinyV3Config();
  config.qk_nope_head_dim = 128;
  config.qk_rope_head_dim = 64;
  config.rope_theta = theta;
  config.rope_scaling = YarnScaling{.factor = factor, .original_max_position_embeddings = original};
  config.rope_scaling->beta_fast = beta_fast;
  return config;
}

TEST(Rope, YarnRangesOfPublishedModels) {
  struct Case {
    double theta;
    uint64_t original;
    double beta_fast;
    double low;
    double high;
    double whole_low;
    double whole_high;
  };
  const Case cases[] = {{1e4, 4096, 32, 10.4722, 22.5134, 10, 23},
                        {1.6e5, 65536, 32, 15.4533, 24.7084, 15, 25},
                        {5e4, 4096, 1, 19.1646, 19.1646, 19, 20}};
  for (const Case& c : cases) {
    Config config = Stretched(c.theta, c.original, 40, c.beta_fast);
    const YarnRange whole = YarnRampRange(*config.rope_scaling, c.theta, 64);
    EXPECT_EQ(whole.low, c.whole_low);
    EXPECT_EQ(whole.high, c.whole_high);
    config.rope_scaling->truncate = false;
    const YarnRange exact = YarnRampRange(*config.rope_scaling, c.theta, 64);
    EXPECT_NEAR(exact.low, c.low, 5e-5);
    EXPECT_NEAR(exact.high, c.low == c.high ? c.high + 0.001 : c.high, 5e-5);
  }
}

TEST(Rope, ScoreScaleCarriesTheSquareOfTheMagnitude) {
  Config config = Stretched(1e4, 4096, 40, 32);
  EXPECT_FLOAT_EQ(AttentionScale(config), static_cast<float>(1 / std::sqrt(192.0)));
  config.rope_scaling->mscale_all_dim = 1.0;
  EXPECT_NEAR(AttentionScale(config), 0.1352337788608801, 1e-8);
  config.rope_scaling->factor = 64;
  EXPECT_NEAR(AttentionScale(config) * std::sqrt(192.0), 2.0047397, 1e-6);
  config.rope_scaling->factor = 1;
  EXPECT_FLOAT_EQ(AttentionScale(config), static_cast<float>(1 / std::sqrt(192.0)));
}

// Length of the vector (cos, sin): what YaRN multiplies both with.
double Magnitude(const Config& config) {
  float turns[64];
  Rope(config).Turns(7, turns);
  return std::hypot(double{turns[0]}, double{turns[1]});
}

TEST(Rope, TablesAreScaledUnlessBothMagnitudesAreGivenAndEqual) {
  Config config = Stretched(1e4, 4096, 40, 32);
  EXPECT_NEAR(Magnitude(config), 1.3688879, 1e-6) << "neither is given";
  config.rope_scaling->mscale = 0.5;
  EXPECT_NEAR(Magnitude(config), 1.3688879, 1e-6) << "one of the two does not count";
  config.rope_scaling->mscale_all_dim = 0.5;
  EXPECT_NEAR(Magnitude(config), 1.0, 1e-6);
  config.rope_scaling->mscale = 1.0;
  EXPECT_NEAR(Magnitude(config), 1.3688879 / (0.05 * std::log(40.0) + 1), 1e-6);
  config.rope_scaling->attention_factor = 0.75;
  EXPECT_NEAR(Magnitude(config), 0.75, 1e-6) << "given outright";
}

TEST(Rope, StretchesSlowChannelsOnly) {
  const Config config = Stretched(1e4, 4096, 40, 32);
  Config plain = config;
  plain.rope_scaling.reset();
  Config scaled = config;
  scaled.rope_scaling->attention_factor = 1.0;
  float before[64];
  float after[64];
  for (const uint64_t position : {1u, 100u, 4000u, 100000u}) {
    Rope(plain).Turns(position, before);
    Rope(scaled).Turns(position, after);
    for (size_t i = 0; i < 32; ++i) {
      const double frequency = std::pow(1e4, -2.0 * static_cast<double>(i) / 64);
      const double ramp = std::min(1.0, std::max(0.0, (static_cast<double>(i) - 10) / 13));
      const double angle =
          static_cast<double>(position) * (frequency / 40 * ramp + frequency * (1 - ramp));
      EXPECT_NEAR(after[2 * i], std::cos(angle), 1e-6) << position << " " << i;
      EXPECT_NEAR(after[2 * i + 1], std::sin(angle), 1e-6) << position << " " << i;
      if (i <= 10) {
        EXPECT_NEAR(after[2 * i], before[2 * i], 1e-6);
      }
    }
  }
}

TEST(Rope, AnglesHoldNearAMillionPositions) {
  Config config = Stretched(8e6, 4096, 1, 32);
  config.rope_scaling.reset();
  float turns[64];
  for (const uint64_t position : {999936u, 1048575u}) {
    Rope(config).Turns(position, turns);
    for (size_t i = 0; i < 32; ++i) {
      const long double angle =
          static_cast<long double>(position) * powl(8e6L, -2.0L * static_cast<long double>(i) / 64);
      EXPECT_NEAR(turns[2 * i], static_cast<double>(cosl(angle)), 1e-6);
      EXPECT_NEAR(turns[2 * i + 1], static_cast<double>(sinl(angle)), 1e-6);
    }
  }
}

}  // namespace
}  // namespace expertmesh::model
