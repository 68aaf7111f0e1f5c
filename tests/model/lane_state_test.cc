// Pages are bounded, come back, and never overlap.
#include "model/lane_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <set>

namespace expertmesh::model {
namespace {

LaneStateDeclaration TwoStreams() {
  return {{{"latent", LaneStreamKind::kTokenPages, 3, 68, kPagePositions, 1},
           {"index", LaneStreamKind::kTokenPages, 2, 32, kPagePositions, 1}}};
}

TEST(LaneState, CountsBytes) {
  EXPECT_EQ(TwoStreams().bytes_per_token(), 3u * 68 + 2 * 32);
  EXPECT_EQ(TwoStreams().page_bytes(), 64u * (3 * 68 + 2 * 32));
}

TEST(LaneState, ReservesWholePagesAndGivesThemBack) {
  PagePool pool(TwoStreams(), 3);
  {
    LaneState lane(pool);
    EXPECT_TRUE(lane.Reserve(0));
    EXPECT_EQ(pool.used(), 0u);
    EXPECT_TRUE(lane.Reserve(65));
    EXPECT_EQ(lane.capacity(), 128u);
    EXPECT_TRUE(lane.Reserve(128));
    EXPECT_EQ(pool.used(), 2u);
    LaneState other(pool);
    EXPECT_FALSE(other.Reserve(65)) << "one page is left";
    EXPECT_EQ(other.capacity(), 0u) << "a refused reservation takes nothing";
    EXPECT_TRUE(other.Reserve(64));
    EXPECT_EQ(pool.used(), 3u);
    lane.Clear();
    EXPECT_EQ(pool.used(), 1u);
    EXPECT_TRUE(other.Reserve(192));
  }
  EXPECT_EQ(pool.used(), 0u);
}

TEST(LaneState, EntriesAreDisjointAndRunsContiguous) {
  PagePool pool(TwoStreams(), 4);
  auto first = std::make_unique<LaneState>(pool);
  LaneState second(pool);
  ASSERT_TRUE(first->Reserve(100));
  ASSERT_TRUE(second.Reserve(100));
  std::set<std::byte*> starts;
  for (LaneState* lane : {first.get(), &second}) {
    for (size_t index = 0; index < 100; ++index) {
      for (size_t layer = 0; layer < 3; ++layer) {
        std::byte* entry = lane->At(0, layer, index);
        EXPECT_TRUE(starts.insert(entry).second);
        std::memset(entry, static_cast<int>(index + layer), 68);
        EXPECT_EQ(lane->Page(0, layer, index / 64) + index % 64 * 68, entry);
      }
    }
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second.Page(1, 1, 1)) % 64, 0u);
  EXPECT_EQ(first->At(0, 2, 99)[67], static_cast<std::byte>(101)) << "nobody wrote over it";
}

TEST(LaneState, HashSeesEveryStreamAndLayer) {
  PagePool pool(TwoStreams(), 2);
  LaneState lane(pool);
  ASSERT_TRUE(lane.Reserve(70));
  const uint64_t before = lane.HashOf(66);
  EXPECT_EQ(lane.HashOf(67), before) << "both are all zero";
  lane.At(1, 1, 66)[31] = std::byte{1};
  EXPECT_NE(lane.HashOf(66), before);
  EXPECT_EQ(lane.HashOf(67), before);
}

TEST(LaneState, ASharedPageIsFreeWhenItsLastOwnerIsGone) {
  PagePool pool(TwoStreams(), 2);
  LaneState first(pool);
  ASSERT_TRUE(first.Reserve(64));
  std::memset(first.At(0, 2, 5), 7, 68);
  pool.AddOwner(first.pages()[0]);  // as a cache does
  LaneState second(pool);
  second.Adopt(first.pages());
  EXPECT_EQ(second.HashOf(5), first.HashOf(5));
  const uint32_t page = first.pages()[0];
  first.Clear();
  pool.Release(page);
  EXPECT_EQ(pool.used(), 1u);
  ASSERT_TRUE(second.Reserve(65));
  EXPECT_EQ(pool.free(), 0u);
  second.Replace(1, page);
  EXPECT_EQ(pool.free(), 1u);
  second.Clear();
  EXPECT_EQ(pool.free(), 2u);
}

TEST(LaneState, APageGoesOutAndInWithoutWhatLiesBehindIt) {
  PagePool pool(TwoStreams(), 2);
  LaneState from(pool);
  ASSERT_TRUE(from.Reserve(64));
  for (size_t index = 0; index < 64; ++index) {
    for (size_t layer = 0; layer < 3; ++layer) {
      std::memset(from.At(0, layer, index), static_cast<int>(index + 64 * layer), 68);
    }
    for (size_t layer = 0; layer < 2; ++layer) {
      std::memset(from.At(1, layer, index), static_cast<int>(200 - index - layer), 32);
    }
  }
  const std::string state = from.CopyPage(0, 10);
  EXPECT_EQ(state.size(), 10 * TwoStreams().bytes_per_token());
  EXPECT_EQ(state.find(static_cast<char>(11)), std::string::npos) << "position 11 went along";
  LaneState to(pool);
  ASSERT_TRUE(to.Reserve(10));
  EXPECT_FALSE(to.WritePage(0, 9, state));
  EXPECT_FALSE(to.WritePage(1, 10, state));
  ASSERT_TRUE(to.WritePage(0, 10, state));
  for (size_t index = 0; index < 10; ++index) EXPECT_EQ(to.HashOf(index), from.HashOf(index));
}

}  // namespace
}  // namespace expertmesh::model
