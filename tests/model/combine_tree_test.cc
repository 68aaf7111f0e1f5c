// The combine tree gives the same bits for every cut; a running sum does not.
#include "model/combine_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace expertmesh::model {
namespace {

using base::PartialNode;

struct Row {
  std::vector<uint16_t> experts;           // ascending
  std::vector<std::vector<float>> leaves;  // one per expert
};

Row RandomRow(uint32_t expert_count, size_t top_k, size_t width, std::mt19937_64& random) {
  std::vector<uint16_t> all(expert_count);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::shuffle(all.begin(), all.end(), random);
  Row row;
  row.experts.assign(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(top_k));
  std::sort(row.experts.begin(), row.experts.end());
  std::normal_distribution<float> normal;
  row.leaves.resize(top_k, std::vector<float>(width));
  for (auto& leaf : row.leaves) {
    for (float& v : leaf) v = normal(random);
  }
  return row;
}

// The definition, one element, straight from docs/model-family.md §5. False if no expert is inside.
bool Defined(const Row& row, size_t element, uint32_t first, int level, float& value) {
  if (level == 0) {
    const auto at = std::find(row.experts.begin(), row.experts.end(), first);
    if (at == row.experts.end()) return false;
    value = row.leaves[static_cast<size_t>(at - row.experts.begin())][element];
    return true;
  }
  const uint32_t half = 1u << (level - 1);
  float left = 0;
  float right = 0;
  const bool has_left = Defined(row, element, first, level - 1, left);
  const bool has_right = Defined(row, element, first + half, level - 1, right);
  value = has_left && has_right ? left + right : has_left ? left : right;
  return has_left || has_right;
}

// Folds for every owner, reduces each partial, finishes.
std::vector<float> ThroughOwners(const Row& row, const std::vector<uint16_t>& owner_of_expert,
                                 uint16_t owners, uint32_t expert_count) {
  std::vector<uint16_t> owners_of_row;
  for (const uint16_t e : row.experts) owners_of_row.push_back(owner_of_expert[e]);
  std::vector<PartialNode> nodes;
  for (uint16_t o = 0; o < owners; ++o) {
    base::FoldRow(0, row.experts, owners_of_row, o, expert_count, nodes);
  }
  std::sort(nodes.begin(), nodes.end());
  const size_t width = row.leaves[0].size();
  std::vector<std::vector<float>> partial(nodes.size(), std::vector<float>(width));
  std::vector<const float*> sums;
  for (size_t p = 0; p < nodes.size(); ++p) {
    std::vector<PartialNode> leaves;
    std::vector<const float*> values;
    for (size_t i = 0; i < row.experts.size(); ++i) {
      if (row.experts[i] < nodes[p].first_expert ||
          row.experts[i] >= nodes[p].first_expert + (1 << nodes[p].level)) {
        continue;
      }
      leaves.push_back({0, row.experts[i], 0});
      values.push_back(row.leaves[i].data());
    }
    SumTree(leaves, values.data(), nodes[p], partial[p]);
    sums.push_back(partial[p].data());
  }
  std::vector<float> out(width);
  FinishTree(nodes, sums.data(), expert_count, out);
  return out;
}

TEST(CombineTree, IsTheDefinitionForEveryCut) {
  std::mt19937_64 random(5);
  constexpr size_t kWidth = 300;  // more than one block of elements
  for (const uint32_t expert_count : {1u, 2u, 7u, 24u, 32u, 64u, 512u}) {
    for (int round = 0; round < 20; ++round) {
      const size_t top_k = 1 + random() % std::min<uint32_t>(16, expert_count);
      const Row row = RandomRow(expert_count, top_k, kWidth, random);
      std::vector<float> expected(kWidth);
      for (size_t i = 0; i < kWidth; ++i) {
        ASSERT_TRUE(Defined(row, i, 0, base::RootLevel(expert_count), expected[i]));
      }
      for (const uint16_t owners : {1, 2, 3, 8}) {
        std::vector<uint16_t> owner_of_expert(expert_count);
        for (uint16_t& o : owner_of_expert) o = static_cast<uint16_t>(random() % owners);
        const std::vector<float> got = ThroughOwners(row, owner_of_expert, owners, expert_count);
        ASSERT_EQ(std::memcmp(got.data(), expected.data(), kWidth * sizeof(float)), 0)
            << expert_count << " experts, " << owners << " owners";
      }
    }
  }
}

TEST(CombineTree, ARunningSumHasOtherBits) {
  std::mt19937_64 random(6);
  const Row row = RandomRow(64, 16, 256, random);
  std::vector<float> running(256, 0.0f);
  for (const auto& leaf : row.leaves) {
    for (size_t i = 0; i < running.size(); ++i) running[i] += leaf[i];
  }
  const std::vector<float> tree = ThroughOwners(row, std::vector<uint16_t>(64, 0), 1, 64);
  EXPECT_NE(std::memcmp(running.data(), tree.data(), 256 * sizeof(float)), 0);
}

TEST(CombineTree, AnAbsentSideIsSkippedNotAdded) {
  const std::vector<float> leaf = {-0.0f, 1.0f};
  const float* sums[] = {leaf.data()};
  const PartialNode node{0, 5, 0};
  std::vector<float> out(2);
  FinishTree(std::span(&node, 1), sums, 64, out);
  EXPECT_TRUE(std::signbit(out[0])) << "−0 plus an absent sibling stays −0";
  std::vector<float> untouched = {3.0f};
  FinishTree({}, nullptr, 64, untouched);
  EXPECT_EQ(untouched[0], 3.0f);
}

}  // namespace
}  // namespace expertmesh::model
