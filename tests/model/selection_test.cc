// The order in which cache entries are chosen (docs/model-family.md §4.4).
#include "model/blocks/selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace expertmesh::model {
namespace {

using Places = std::vector<uint32_t>;

Places Largest(const std::vector<float>& scores, size_t top) {
  std::vector<uint64_t> candidates;
  Places out(top);
  EXPECT_TRUE(SelectLargest(scores, top, candidates, out.data()));
  return out;
}

TEST(Selection, EqualScoresTakeTheLowestPlaces) {
  EXPECT_EQ(Largest(std::vector<float>(9, 0.0f), 4), (Places{0, 1, 2, 3}));
  EXPECT_EQ(Largest({0.0f, -0.0f, 0.0f, -0.0f}, 2), (Places{0, 1}));
  EXPECT_EQ(Largest({1, 2, 2, 2, 3}, 3), (Places{1, 2, 4}));
}

TEST(Selection, TakesInfinitiesAndRefusesNaN) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Largest({-kInf, 0, kInf, -1}, 2), (Places{1, 2}));
  std::vector<uint64_t> candidates;
  Places out(2);
  for (const float nan : {NAN, -NAN}) {
    EXPECT_FALSE(SelectLargest(std::vector<float>{0, nan, 1}, 2, candidates, out.data()));
  }
}

TEST(Selection, EqualsAStableSort) {
  std::mt19937 rng(1);
  for (int run = 0; run < 300; ++run) {
    std::vector<float> scores(1 + rng() % 200);
    if (run % 10 == 0) scores.resize(5000 + rng() % 5000);
    std::normal_distribution<float> normal;
    for (float& s : scores) {
      s = run % 2 == 0 ? static_cast<float>(rng() % 12) - 6.0f : normal(rng) * 1e-3f;
    }
    const size_t top = 1 + rng() % scores.size();
    Places order(scores.size());
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(),
                     [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
    order.resize(top);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(Largest(scores, top), order);
  }
}

}  // namespace
}  // namespace expertmesh::model
