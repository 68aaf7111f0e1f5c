#include "router/core/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/router/core/mesh.h"

namespace expertmesh::router {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

std::string Missing(const Placement& p) { return base::SliceName(p.missing()); }

/// "0-15>0-15[e0]" per pool: name, experts placed there, replicas.
std::string Map(const Placement& p) {
  if (!p.state()) return "none";
  std::string text;
  for (const PlacedPool& pool : p.state()->pools) {
    text += text.empty() ? "" : " ";
    text += pool.name + ">" + base::SliceName(pool.experts) + "[";
    for (const std::string& r : pool.replicas) text += (text.back() == '[' ? "" : ",") + r;
    text += "]";
  }
  return text;
}

std::string EpochOf(const Placement& p) {
  return std::to_string(p.state()->epoch.term) + "." + std::to_string(p.state()->epoch.number);
}

Member NotReady(Member m) {
  m.report.ready = false;
  return m;
}
Member Draining(Member m) {
  m.report.draining = true;
  return m;
}
Member After(Member m, EpochId epoch) {
  m.last_epoch = epoch;
  return m;
}

TEST(PlacementTest, WaitsUntilEveryGroupIsHosted) {
  Placement p;
  EXPECT_FALSE(p.Update({}));
  EXPECT_THAT(p.missing(), IsEmpty());  // nobody knows how many there are
  EXPECT_FALSE(p.Update(Mesh({Attention("a0")})));
  EXPECT_EQ(Missing(p), "0-31");
  EXPECT_FALSE(p.Update(Mesh({Attention("a0"), Expert("e0", "0-15"), Expert("e1", "24-31")})));
  EXPECT_EQ(Missing(p), "16-23");
  EXPECT_FALSE(p.state());
  EXPECT_FALSE(p.Update(Mesh({Attention("a0"), Expert("e0", "0-15"), Expert("e1", "24-31"),
                              NotReady(Expert("e2", "16-23"))})));
  EXPECT_EQ(Missing(p), "16-23");
  EXPECT_TRUE(p.Update(
      Mesh({Attention("a0"), Expert("e0", "0-15"), Expert("e1", "24-31"), Expert("e2", "16-23")})));
  EXPECT_THAT(p.missing(), IsEmpty());
  EXPECT_EQ(Map(p), "0-15>0-15[e0] 16-23>16-23[e2] 24-31>24-31[e1]");
  EXPECT_EQ(EpochOf(p), "1.1");
  EXPECT_EQ(p.state()->model, "tiny");
  EXPECT_EQ(p.state()->revision, "rev-a");
  EXPECT_EQ(p.state()->expert_count, 32u);
  EXPECT_EQ(p.state()->group_size, 1u);
}

TEST(PlacementTest, ExpertWorkersAloneAreEnough) {
  Placement p;
  EXPECT_TRUE(p.Update(Mesh({Expert("e0", "0-31")})));
  EXPECT_EQ(Map(p), "0-31>0-31[e0]");
}

TEST(PlacementTest, ReplicasComeAndGoWithoutAnEpoch) {
  Placement p;
  ASSERT_TRUE(p.Update(Mesh({Expert("e0", "0-15"), Expert("e1", "16-31")})));
  const EpochId epoch = p.state()->epoch;
  EXPECT_FALSE(p.Update(Mesh({Expert("e0", "0-15"), Expert("e1", "16-31"), Expert("f0", "0-15")})));
  EXPECT_EQ(Map(p), "0-15>0-15[e0,f0] 16-31>16-31[e1]");
  EXPECT_FALSE(p.Update(Mesh({Expert("e1", "16-31"), Expert("f0", "0-15")})));
  EXPECT_EQ(Map(p), "0-15>0-15[f0] 16-31>16-31[e1]");
  EXPECT_FALSE(p.Update(
      Mesh({Draining(Expert("e0", "0-15")), Expert("e1", "16-31"), Expert("f0", "0-15")})));
  EXPECT_EQ(Map(p), "0-15>0-15[f0] 16-31>16-31[e1]");
  EXPECT_EQ(p.state()->epoch, epoch);
}

TEST(PlacementTest, ADeadPoolShowsAsMissingAndKeepsItsGroups) {
  Placement p;
  ASSERT_TRUE(p.Update(Mesh({Expert("e0", "0-15"), Expert("e1", "16-31")})));
  EXPECT_FALSE(p.Update(Mesh({Expert("e1", "16-31")})));
  EXPECT_EQ(Map(p), "0-15>0-15[] 16-31>16-31[e1]");
  EXPECT_EQ(Missing(p), "0-15");
  EXPECT_FALSE(p.Update(Mesh({})));
  EXPECT_EQ(Missing(p), "0-31");
  EXPECT_FALSE(p.Update(Mesh({Expert("e9", "0-15"), Expert("e1", "16-31")})));
  EXPECT_EQ(Map(p), "0-15>0-15[e9] 16-31>16-31[e1]");
  EXPECT_THAT(p.missing(), IsEmpty());
  EXPECT_EQ(EpochOf(p), "1.1");
}

TEST(PlacementTest, GroupsStayWithAServingPoolAndMoveFromADeadOne) {
  Placement p;
  ASSERT_TRUE(p.Update(Mesh({Expert("e0", "0-15"), Expert("e1", "16-31")})));
  // A larger pool comes: nothing moves.
  EXPECT_FALSE(
      p.Update(Mesh({Expert("all", "0-31"), Expert("e0", "0-15"), Expert("e1", "16-31")})));
  EXPECT_EQ(Map(p), "0-15>0-15[e0] 16-31>16-31[e1]");
  EXPECT_TRUE(p.Update(Mesh({Expert("all", "0-31"), Expert("e1", "16-31")})));
  EXPECT_EQ(Map(p), "0-31>0-15[all] 16-31>16-31[e1]");
  EXPECT_EQ(EpochOf(p), "1.2");
  EXPECT_THAT(p.missing(), IsEmpty());
  // The first pool is back: nothing moves back.
  EXPECT_FALSE(
      p.Update(Mesh({Expert("all", "0-31"), Expert("e0", "0-15"), Expert("e1", "16-31")})));
  EXPECT_TRUE(p.Update(Mesh({Expert("all", "0-31")})));
  EXPECT_EQ(Map(p), "0-31>0-31[all]");
  EXPECT_EQ(EpochOf(p), "1.3");
}

TEST(PlacementTest, ADrainingPoolHandsItsGroupsOn) {
  Placement p;
  ASSERT_TRUE(p.Update(Mesh({Expert("e0", "0-15"), Expert("e1", "16-31")})));
  EXPECT_TRUE(p.Update(
      Mesh({Expert("all", "0-31"), Draining(Expert("e0", "0-15")), Expert("e1", "16-31")})));
  EXPECT_EQ(Map(p), "0-31>0-15[all] 16-31>16-31[e1]");
}

TEST(PlacementTest, TheFirstCandidateIsTheLowestExpertThenTheName) {
  Placement p;
  ASSERT_TRUE(p.Update(
      Mesh({Expert("z", "0-7"), Expert("y", "0-31"), Expert("x", "4-31"), Expert("w", "8-31")})));
  EXPECT_EQ(Map(p), "0-31>0-31[y]");  // "0-31" sorts before "0-7"
  Placement q;
  ASSERT_TRUE(q.Update(Mesh({Expert("z", "0-7"), Expert("x", "4-31"), Expert("w", "8-31")})));
  EXPECT_EQ(Map(q), "0-7>0-7[z] 4-31>8-31[x]");
}

TEST(PlacementTest, ASliceWithAHole) {
  Placement p;
  EXPECT_FALSE(p.Update(Mesh({Expert("e0", "0-3,8-31")})));
  EXPECT_EQ(Missing(p), "4-7");
  EXPECT_TRUE(p.Update(Mesh({Expert("e0", "0-3,8-31"), Expert("e1", "4-7")})));
  EXPECT_EQ(Map(p), "0-3,8-31>0-3,8-31[e0] 4-7>4-7[e1]");
}

TEST(PlacementTest, GroupsMoveAsAWhole) {
  constexpr uint32_t kMany = 256;  // groups of four
  Placement p;
  EXPECT_FALSE(p.Update(Mesh({Expert("e0", "0-101", kMany), Expert("e1", "102-255", kMany)})));
  EXPECT_EQ(Missing(p), "100-103");  // both halves are there, the group is not
  EXPECT_FALSE(p.Update(Mesh({Expert("e0", "0-101", kMany), Expert("e1", "103-255", kMany)})));
  EXPECT_EQ(Missing(p), "102");
  EXPECT_TRUE(p.Update(Mesh({Expert("e0", "0-101", kMany), Expert("e1", "100-255", kMany)})));
  EXPECT_EQ(Map(p), "0-101>0-99[e0] 100-255>100-255[e1]");
  EXPECT_EQ(p.state()->group_size, 4u);
}

TEST(PlacementTest, RandomSlicesAreAllPlaced) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const int workers = 1 + static_cast<int>(random() % 6);
    std::vector<std::vector<base::ExpertRange>> slices(static_cast<size_t>(workers));
    std::vector<bool> hosted(kExperts, false);
    for (auto& slice : slices) {
      for (uint32_t e = 0; e < kExperts; ++e) {
        if (random() % 2 == 0) continue;
        hosted[e] = true;
        if (!slice.empty() && slice.back().end == e) {
          slice.back().end = e + 1;
        } else {
          slice.push_back({e, e + 1});
        }
      }
    }
    Members members;
    for (size_t w = 0; w < slices.size(); ++w) {
      if (slices[w].empty()) continue;
      Member m = Expert("e" + std::to_string(w), "0");
      m.experts = slices[w];
      members[{m.role, m.name}] = m;
    }
    Placement p;
    const bool all = std::find(hosted.begin(), hosted.end(), false) == hosted.end();
    ASSERT_EQ(p.Update(members), all && !members.empty()) << round;
    if (!all) {
      for (const base::ExpertRange& r : p.missing()) {
        for (uint32_t e = r.begin; e < r.end; ++e) ASSERT_FALSE(hosted[e]) << round;
      }
      continue;
    }
    std::vector<int> placed(kExperts, 0);
    uint32_t last_first = 0;
    for (const PlacedPool& pool : p.state()->pools) {
      ASSERT_THAT(pool.replicas, testing::Not(IsEmpty()));
      ASSERT_GE(pool.experts.front().begin, last_first);
      last_first = pool.experts.front().begin;
      for (const base::ExpertRange& r : pool.experts) {
        for (uint32_t e = r.begin; e < r.end; ++e) ++placed[e];
      }
    }
    EXPECT_THAT(placed, testing::Each(1)) << round;
  }
}

TEST(PlacementTest, TheSameMapHasTheSameHash) {
  const auto first = Mesh({Expert("e0", "0-15"), Expert("e1", "16-31")});
  const auto other_workers = Mesh({Attention("a"), Expert("x", "0-15"), Expert("y", "16-31")});
  const auto other_cut = Mesh({Expert("e0", "0-7"), Expert("e1", "8-31")});
  Placement a, b, c;
  a.Update(first);
  b.Update(other_workers);
  c.Update(other_cut);
  EXPECT_EQ(a.state()->epoch.content_hash, b.state()->epoch.content_hash);
  EXPECT_NE(a.state()->epoch.content_hash, c.state()->epoch.content_hash);
}

TEST(PlacementTest, TheFirstTermIsAboveAllThatMembersHaveSeen) {
  Placement p;
  EXPECT_FALSE(p.Update(Mesh({After(Expert("e0", "0-15"), {7, 3, 1})})));
  EXPECT_TRUE(p.Update(Mesh({Expert("e1", "16-31"), Expert("f0", "0-15")})));  // e0 has left
  EXPECT_EQ(EpochOf(p), "8.1");
}

TEST(PlacementTest, AnotherRoutersEpochIsOutbid) {
  const Member e0 = Expert("e0", "0-15");
  const Member e1 = Expert("e1", "16-31");
  Placement p;
  ASSERT_TRUE(p.Update(Mesh({e0, e1})));
  const EpochId ours = p.state()->epoch;
  EXPECT_EQ(EpochOf(p), "1.1");
  // It reconnects with what this router gave it.
  EXPECT_FALSE(p.Update(Mesh({After(e0, ours), e1})));
  // The same number, another map: not ours.
  EXPECT_TRUE(p.Update(Mesh({After(e0, {1, 1, ours.content_hash + 1}), e1})));
  EXPECT_EQ(EpochOf(p), "2.1");
  EXPECT_EQ(p.state()->epoch.content_hash, ours.content_hash);  // the map is the same
  EXPECT_FALSE(p.Update(Mesh({After(e0, {1, 9, 5}), e1})));     // an old term is no matter
  EXPECT_TRUE(p.Update(Mesh({After(e0, {2, 5, ours.content_hash}), e1})));  // a number to come
  EXPECT_EQ(EpochOf(p), "3.1");
  EXPECT_TRUE(p.Update(Mesh({After(e0, {40, 2, 9}), e1})));
  EXPECT_EQ(EpochOf(p), "41.1");
  EXPECT_FALSE(p.Update(Mesh({After(e0, {40, 2, 9}), e1})));
}

TEST(PlacementTest, ATermThatComesBeforeThePlacementIsOutbidToo) {
  Placement p;
  ASSERT_TRUE(p.Update(Mesh({Expert("e0", "0-31")})));
  Member other = OfRevision(Attention("a0"), "rev-b");
  other.last_epoch = {5, 5, 5};
  EXPECT_FALSE(p.Update(Mesh({other})));  // switches to rev-b, which nobody hosts yet
  EXPECT_FALSE(p.state());
  EXPECT_TRUE(p.Update(Mesh({OfRevision(Expert("e0", "0-31"), "rev-b")})));
  EXPECT_EQ(EpochOf(p), "6.1");
}

TEST(PlacementTest, TheFirstAttentionWorkersModelIsPlaced) {
  Placement p;
  EXPECT_TRUE(p.Update(Mesh(
      {OfRevision(Expert("e0", "0-31"), "rev-a", 1), OfRevision(Expert("e1", "0-31"), "rev-b", 2),
       OfRevision(Attention("a0"), "rev-c", 9), OfRevision(Attention("a1"), "rev-b", 8)})));
  EXPECT_EQ(p.state()->revision, "rev-b");
  EXPECT_EQ(Map(p), "0-31>0-31[e1]");
  ASSERT_THAT(p.left_out(), SizeIs(2));
  EXPECT_EQ(p.left_out()[0].worker, "a0");
  EXPECT_EQ(p.left_out()[1].worker, "e0");
  EXPECT_THAT(p.left_out()[1].reason, testing::HasSubstr("rev-a"));
}

TEST(PlacementTest, WithoutAttentionWorkersTheFirstExpertWorkersModelIsPlaced) {
  Placement p;
  EXPECT_TRUE(p.Update(Mesh({OfRevision(Expert("e0", "0-31"), "rev-a", 5),
                             OfRevision(Expert("e1", "0-31"), "rev-b", 2)})));
  EXPECT_EQ(p.state()->revision, "rev-b");
}

TEST(PlacementTest, AnAttentionWorkerOverrulesUntilTheFirstPlacement) {
  Placement p;
  EXPECT_FALSE(p.Update(Mesh({Expert("e0", "0-15")})));
  EXPECT_FALSE(p.Update(Mesh({Expert("e0", "0-15"), OfRevision(Attention("a0"), "rev-b", 9)})));
  EXPECT_EQ(Missing(p), "0-31");
  EXPECT_TRUE(p.Update(Mesh({Expert("e0", "0-15"), OfRevision(Attention("a0"), "rev-b", 9),
                             OfRevision(Expert("e1", "0-31"), "rev-b", 10)})));
}

TEST(PlacementTest, APlacedModelIsKeptWhileAWorkerHasIt) {
  Placement p;
  const Member stray = OfRevision(Attention("stray"), "rev-b", 1);
  ASSERT_TRUE(p.Update(Mesh({Attention("a0"), Expert("e0", "0-31"), stray})));
  EXPECT_FALSE(p.Update(Mesh({Expert("e0", "0-31"), stray})));  // a0 restarts
  EXPECT_EQ(p.state()->revision, "rev-a");
  EXPECT_FALSE(p.Update(Mesh({stray})));
  EXPECT_FALSE(p.state());
  EXPECT_TRUE(p.Update(Mesh({stray, OfRevision(Expert("e0", "0-31"), "rev-b")})));
  EXPECT_EQ(p.state()->revision, "rev-b");
  EXPECT_EQ(EpochOf(p), "1.2");  // numbers never go back in a term
}

TEST(PlacementTest, WorkersOfAnotherProfileOrSizeAreLeftOut) {
  Member other_profile = Expert("e1", "16-31");
  other_profile.profile = "exact-f32";
  const Member other_size = Expert("e2", "16-31", 64);
  Placement p;
  EXPECT_FALSE(p.Update(Mesh({Attention("a0"), Expert("e0", "0-15"), other_profile, other_size})));
  EXPECT_EQ(Missing(p), "16-31");
  EXPECT_THAT(p.left_out(), SizeIs(2));
  EXPECT_TRUE(p.Update(Mesh({Attention("a0"), Expert("e0", "0-15"), Expert("e3", "16-31")})));
  EXPECT_THAT(p.left_out(), IsEmpty());
}

TEST(PlacementTest, ManyEpochsOfOneTermStayOurs) {
  const Member low = Expert("low", "0-15");
  const Member high = Expert("high", "16-31");
  const Member all = Expert("all", "0-31");
  Placement p;
  ASSERT_TRUE(p.Update(Mesh({low, high})));
  const EpochId first = p.state()->epoch;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(p.Update(Mesh({all})));
    ASSERT_TRUE(p.Update(Mesh({low, high})));
  }
  EXPECT_EQ(EpochOf(p), "1.201");
  EXPECT_FALSE(p.Update(Mesh({After(low, first), high})));  // long ago, still ours
  EXPECT_EQ(EpochOf(p), "1.201");
}

}  // namespace
}  // namespace expertmesh::router
