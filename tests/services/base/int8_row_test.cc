// Rows in int8 against the rule in double arithmetic.
#include "services/base/int8_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace expertmesh::base {
namespace {

TEST(Int8RowTest, CodesAreTheNearestAndTheScaleIsTheGreatestOver127) {
  std::mt19937 rng(5);
  std::normal_distribution<float> normal;
  for (const size_t n : {size_t{1}, size_t{7}, size_t{64}, size_t{1024}}) {
    std::vector<float> row(n);
    for (float& value : row) value = normal(rng);
    float amax = 0;
    for (const float value : row) amax = std::max(amax, std::fabs(value));
    std::vector<int8_t> codes(n);
    EXPECT_EQ(QuantiseInt8Row(row, codes.data()), amax / 127.0f);
    const float inverse = 127.0f / amax;
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(codes[i], std::lrint(row[i] * inverse)) << i;
  }
}

TEST(Int8RowTest, TiesGoToEvenAndTheGreatestIs127) {
  const std::vector<float> row = {127.0f, -127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 126.5f};
  std::vector<int8_t> codes(row.size());
  EXPECT_EQ(QuantiseInt8Row(row, codes.data()), 1.0f);
  EXPECT_EQ(codes, (std::vector<int8_t>{127, -127, 0, 2, 2, 0, -2, 126}));
}

TEST(Int8RowTest, ZerosTinyRowsAndWhatIsNotFinite) {
  std::vector<int8_t> codes(2, int8_t{9});
  for (const float tiny : {0.0f, -0.0f, 0x1p-149f, 0x1.8p-101f}) {
    codes = {9, 9};
    EXPECT_EQ(QuantiseInt8Row(std::vector<float>{tiny, 0.0f}, codes.data()), 0.0f);
    EXPECT_EQ(codes, (std::vector<int8_t>{0, 0}));
  }
  EXPECT_GT(QuantiseInt8Row(std::vector<float>{0x1p-100f, 0.0f}, codes.data()), 0.0f);
  EXPECT_EQ(codes[0], 127);
  const float most = std::numeric_limits<float>::max();
  EXPECT_EQ(QuantiseInt8Row(std::vector<float>{most, -most}, codes.data()), most / 127.0f);
  EXPECT_EQ(codes, (std::vector<int8_t>{127, -127}));
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    EXPECT_TRUE(std::isnan(QuantiseInt8Row(std::vector<float>{1.0f, bad}, codes.data())));
  }
}

}  // namespace
}  // namespace expertmesh::base
