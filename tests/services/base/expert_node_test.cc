#include "services/base/expert_node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "services/base/random.h"
#include "services/base/status.h"

namespace expertmesh::base {
namespace {

using Nodes = std::vector<PartialNode>;
using Ranges = std::vector<ExpertRange>;

TEST(RootLevel, CoversTheExperts) {
  EXPECT_EQ(RootLevel(1), 0);
  EXPECT_EQ(RootLevel(2), 1);
  EXPECT_EQ(RootLevel(24), 5);
  EXPECT_EQ(RootLevel(32), 5);
  EXPECT_EQ(RootLevel(33), 6);
  EXPECT_EQ(RootLevel(512), 9);
}

TEST(ExpertGroupSize, IsAPowerOfTwo) {
  EXPECT_EQ(ExpertGroupSize(8), 1u);
  EXPECT_EQ(ExpertGroupSize(64), 1u);
  EXPECT_EQ(ExpertGroupSize(256), 4u);
  EXPECT_EQ(ExpertGroupSize(384), 4u);
  EXPECT_EQ(ExpertGroupSize(512), 8u);
}

Nodes Fold(const std::vector<uint16_t>& experts, const std::vector<uint16_t>& owners,
           uint16_t owner, uint32_t expert_count) {
  Nodes out;
  FoldRow(9, experts, owners, owner, expert_count, out);
  return out;
}

TEST(FoldRow, OneOwnerIsTheRoot) {
  EXPECT_EQ(Fold({1, 5, 30}, {0, 0, 0}, 0, 32), (Nodes{{9, 0, 5}}));
  EXPECT_EQ(Fold({1, 5, 30}, {0, 0, 0}, 1, 32), Nodes{});
  EXPECT_EQ(Fold({}, {}, 0, 32), Nodes{});
}

TEST(FoldRow, AlignedSlicesGiveOneNodeEach) {
  const std::vector<uint16_t> experts = {3, 15, 16, 31};
  EXPECT_EQ(Fold(experts, {0, 0, 1, 1}, 0, 32), (Nodes{{9, 0, 4}}));
  EXPECT_EQ(Fold(experts, {0, 0, 1, 1}, 1, 32), (Nodes{{9, 16, 4}}));
}

TEST(FoldRow, UnalignedSlicesGiveTheMaximalNodes) {
  // Pool 0 hosts 0-11, pool 1 hosts 12-31: the cut at 12 is not a node of size 16.
  const std::vector<uint16_t> experts = {2, 9, 12, 14, 20};
  EXPECT_EQ(Fold(experts, {0, 0, 1, 1, 1}, 0, 32), (Nodes{{9, 0, 3}, {9, 8, 2}}));
  EXPECT_EQ(Fold(experts, {0, 0, 1, 1, 1}, 1, 32), (Nodes{{9, 12, 2}, {9, 16, 4}}));
}

// Every chosen expert of the owner is in exactly one node, no node holds another owner's expert,
// and no node could be its parent.
TEST(FoldRow, PropertiesOverRandomRows) {
  constexpr uint32_t kExperts = 48;
  for (uint32_t round = 0; round < 500; ++round) {
    std::set<uint16_t> chosen;
    for (uint32_t i = 0; i < 8; ++i) {
      chosen.insert(static_cast<uint16_t>(Philox({1, 2}, {round, i, 0, 0})[0] % kExperts));
    }
    const std::vector<uint16_t> experts(chosen.begin(), chosen.end());
    std::vector<uint16_t> owners;
    for (uint16_t expert : experts) {
      owners.push_back(static_cast<uint16_t>(Philox({3, 4}, {round, expert, 0, 0})[0] % 3));
    }
    const auto all_owned = [&](uint32_t first, int level, uint16_t owner) {
      for (size_t i = 0; i < experts.size(); ++i) {
        const bool inside = experts[i] >= first && experts[i] < first + (1u << level);
        if (inside && owners[i] != owner) return false;
      }
      return true;
    };
    for (uint16_t owner = 0; owner < 3; ++owner) {
      const Nodes nodes = Fold(experts, owners, owner, kExperts);
      EXPECT_TRUE(std::is_sorted(nodes.begin(), nodes.end()));
      size_t covered = 0;
      for (const PartialNode& node : nodes) {
        EXPECT_TRUE(all_owned(node.first_expert, node.level, owner));
        for (uint16_t expert : experts) {
          covered += expert >= node.first_expert && expert < node.first_expert + (1 << node.level);
        }
        if (node.level < RootLevel(kExperts)) {
          const uint32_t parent = node.first_expert & ~((2u << node.level) - 1);
          EXPECT_FALSE(all_owned(parent, node.level + 1, owner));
        }
      }
      EXPECT_EQ(covered, static_cast<size_t>(std::count(owners.begin(), owners.end(), owner)));
    }
  }
}

TEST(ParseSlice, SortsAndMerges) {
  EXPECT_EQ(*ParseSlice("0-15", 32), (Ranges{{0, 16}}));
  EXPECT_EQ(*ParseSlice("24-31,0-3,4-7,9", 32), (Ranges{{0, 8}, {9, 10}, {24, 32}}));
  EXPECT_EQ(*ParseSlice("0-9,3-5", 32), (Ranges{{0, 10}}));
}

TEST(ParseSlice, RefusesWhatItCannotRead) {
  for (const char* text : {"", ",", "a", "0-", "-3", "0-15,", "0,,1", "0 -3", "0-3;4", "3-1", "32",
                           "0-32", "+1", "0x1", "99999999999", "0-4294967295", "1-2-3"}) {
    const auto ranges = ParseSlice(text, 32);
    EXPECT_EQ(ReasonOf(ranges.status()), Reason::kInvalidArgument) << '"' << text << '"';
  }
}

TEST(SliceName, IsTheInverseOfParseSlice) {
  for (const char* text : {"0-15", "7", "0-3,8-11", "0,2,4-31"}) {
    EXPECT_EQ(SliceName(*ParseSlice(text, 32)), text);
  }
  EXPECT_EQ(SliceName({}), "");
}

TEST(MissingFrom, ListsTheGaps) {
  EXPECT_EQ(MissingFrom({}, 32), (Ranges{{0, 32}}));
  EXPECT_EQ(MissingFrom(Ranges{{0, 32}}, 32), Ranges{});
  EXPECT_EQ(MissingFrom(Ranges{{0, 8}, {16, 24}}, 32), (Ranges{{8, 16}, {24, 32}}));
  EXPECT_EQ(MissingFrom(Ranges{{0, 10}, {3, 5}}, 32), (Ranges{{10, 32}}));  // a replica inside
}

TEST(MissingFrom, IgnoresWhatIsBeyondTheExperts) {
  EXPECT_EQ(MissingFrom(Ranges{{40, 50}}, 32), (Ranges{{0, 32}}));
  EXPECT_EQ(MissingFrom(Ranges{{0, 36}, {40, 50}}, 32), Ranges{});
}

TEST(CutSlices, CutsAtAlignedPowersOfTwo) {
  EXPECT_EQ(*CutSlices(32, 1), (Ranges{{0, 32}}));
  EXPECT_EQ(*CutSlices(32, 2), (Ranges{{0, 16}, {16, 32}}));
  EXPECT_EQ(*CutSlices(32, 3), (Ranges{{0, 16}, {16, 24}, {24, 32}}));
  EXPECT_EQ(*CutSlices(24, 3), (Ranges{{0, 8}, {8, 16}, {16, 24}}));
}

TEST(CutSlices, EveryCutCoversEveryExpertOnce) {
  for (uint32_t experts : {1u, 7u, 24u, 32u, 384u}) {
    for (uint32_t pools = 1; pools <= std::min(experts, 40u); ++pools) {
      const auto slices = CutSlices(experts, pools);
      ASSERT_TRUE(slices.ok());
      ASSERT_EQ(slices->size(), pools);
      uint32_t at = 0;
      for (const ExpertRange& slice : *slices) {
        EXPECT_EQ(slice.begin, at);
        EXPECT_LT(slice.begin, slice.end);
        at = slice.end;
      }
      EXPECT_EQ(at, experts);
    }
  }
}

TEST(CutSlices, RefusesNoPoolsAndTooMany) {
  EXPECT_EQ(ReasonOf(CutSlices(32, 0).status()), Reason::kInvalidArgument);
  EXPECT_EQ(ReasonOf(CutSlices(32, 33).status()), Reason::kInvalidArgument);
  EXPECT_EQ(CutSlices(32, 32)->size(), 32u);
}

}  // namespace
}  // namespace expertmesh::base
