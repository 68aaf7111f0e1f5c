#include "attention-worker/core/prefix_cache.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>

namespace expertmesh::attention_worker {
namespace {

constexpr size_t kBlock = 4;

BlockChain Chain(const std::vector<uint32_t>& tokens, const PrefixSeed& seed = {},
                 std::string_view secret = "secret") {
  BlockChain chain(RootKey(secret, seed), kBlock);
  chain.Extend(tokens);
  return chain;
}

std::vector<uint32_t> Tokens(size_t count, uint32_t first = 0) {
  std::vector<uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(BlockChain, HasFullBlocksOnlyAndGrowsTheSameInPieces) {
  const std::vector<uint32_t> tokens = Tokens(14);
  const BlockChain whole = Chain(tokens);
  ASSERT_EQ(whole.blocks().size(), 3u);
  BlockChain pieces(RootKey("secret", {}), kBlock);
  for (size_t n = 1; n <= tokens.size(); ++n) pieces.Extend(std::span(tokens).first(n));
  ASSERT_EQ(pieces.blocks().size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(pieces.blocks()[i].key, whole.blocks()[i].key);
}

TEST(BlockChain, AKeyDependsOnEverythingTheStateDependsOn) {
  const PrefixSeed base = {"tenant", "revision", "tokenizer", "bf16", "version", 0};
  std::vector<PrefixSeed> seeds(8, base);
  seeds[1].tenant = "other";
  seeds[2].revision = "other";
  seeds[3].tokenizer = "other";
  seeds[4].profile = "exact-f32";
  seeds[5].engram_version = "other";
  seeds[6].first_position = 1;
  seeds[7].tenant = "tenantrevision";  // the same bytes in a row, cut elsewhere
  seeds[7].revision = "";
  std::set<BlockKey> keys;
  for (const PrefixSeed& seed : seeds) keys.insert(Chain(Tokens(4), seed).blocks()[0].key);
  keys.insert(Chain(Tokens(4), base, "another secret").blocks()[0].key);
  keys.insert(Chain(Tokens(4, 1), base).blocks()[0].key);
  EXPECT_EQ(keys.size(), 10u);
  // The second block's key depends on the first block's tokens.
  std::vector<uint32_t> changed = Tokens(8);
  changed[0] = 99;
  EXPECT_NE(Chain(changed).blocks()[1].key, Chain(Tokens(8)).blocks()[1].key);
}

TEST(PrefixCache, FindsTheSharedBeginning) {
  PrefixCache cache;
  const BlockChain first = Chain(Tokens(12));
  for (size_t i = 0; i < 3; ++i) {
    const auto inserted = cache.Insert(first, i, static_cast<uint32_t>(10 + i));
    ASSERT_TRUE(inserted);
    EXPECT_FALSE(inserted->was_here);
  }
  std::vector<uint32_t> tokens = Tokens(12);
  tokens[9] = 77;
  const BlockChain second = Chain(tokens);
  EXPECT_EQ(cache.Match(second, 100), 2u);
  EXPECT_EQ(cache.Match(second, 1), 1u);
  EXPECT_EQ(cache.Unheld(second, 2), 0u);
  EXPECT_EQ(cache.Hold(second, 2), (std::vector<uint32_t>{10, 11}));
  EXPECT_EQ(cache.Release(first, 3), 1u);  // the other lane holds two of them
  EXPECT_EQ(cache.evictable(), 1u);
  EXPECT_EQ(cache.Release(second, 2), 2u);
  EXPECT_EQ(cache.evictable(), 3u);
}

TEST(PrefixCache, TheSameBlockComputedTwiceStandsOnce) {
  PrefixCache cache;
  const BlockChain chain = Chain(Tokens(4));
  cache.Insert(chain, 0, 1);
  auto again = cache.Insert(chain, 0, 2);
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->was_here);
  EXPECT_TRUE(again->was_held);
  EXPECT_EQ(again->page, 1u);
  EXPECT_EQ(cache.Release(chain, 1), 0u);
  EXPECT_EQ(cache.Release(chain, 1), 1u);
  again = cache.Insert(chain, 0, 3);
  EXPECT_FALSE(again->was_held);
  EXPECT_EQ(again->page, 1u);
}

TEST(PrefixCache, EvictsTheOldestLeafAndNeverWhatIsHeldOrContinued) {
  PrefixCache cache;
  const BlockChain old = Chain(Tokens(8));
  const BlockChain young = Chain(Tokens(8, 100));
  const BlockChain held = Chain(Tokens(4, 200));
  for (size_t i = 0; i < 2; ++i) cache.Insert(old, i, static_cast<uint32_t>(1 + i));
  for (size_t i = 0; i < 2; ++i) cache.Insert(young, i, static_cast<uint32_t>(11 + i));
  cache.Insert(held, 0, 21);
  cache.Release(old, 2);
  cache.Release(young, 2);
  EXPECT_EQ(cache.Evict(), 2u);  // the end of the older chain, then its beginning
  EXPECT_EQ(cache.Evict(), 1u);
  EXPECT_EQ(cache.Match(old, 2), 0u);
  EXPECT_EQ(cache.Match(young, 2), 2u);
  EXPECT_EQ(cache.Evict(), 12u);
  EXPECT_EQ(cache.Evict(), 11u);
  EXPECT_EQ(cache.Evict(), std::nullopt);
  EXPECT_EQ(cache.blocks(), 1u);
}

// Random lanes over few tokens: whatever happens, holders and pages are counted right and every
// block that nobody holds can be evicted.
TEST(PrefixCache, HoldsItsCountsUnderRandomUse) {
  std::mt19937 rng(7);
  PrefixCache cache;
  struct Lane {
    BlockChain chain;
    size_t held = 0;
  };
  std::vector<Lane> lanes;
  uint32_t next_page = 0;
  for (int step = 0; step < 20000; ++step) {
    const uint32_t what = rng() % 4;
    if (what == 0 && lanes.size() < 6) {
      std::vector<uint32_t> tokens(kBlock * (1 + rng() % 4));
      for (uint32_t& token : tokens) token = rng() % 16 == 0;
      Lane lane{Chain(tokens)};
      lane.held = cache.Match(lane.chain, rng() % 4);
      cache.Hold(lane.chain, lane.held);
      lanes.push_back(std::move(lane));
    } else if (what == 1 && !lanes.empty()) {
      Lane& lane = lanes[rng() % lanes.size()];
      if (lane.held < lane.chain.blocks().size()) {
        ASSERT_TRUE(cache.Insert(lane.chain, lane.held, next_page++));
        ++lane.held;
      }
    } else if (what == 2 && !lanes.empty()) {
      const size_t place = rng() % lanes.size();
      cache.Release(lanes[place].chain, lanes[place].held);
      lanes.erase(lanes.begin() + static_cast<ptrdiff_t>(place));
    } else if (rng() % 8 == 0) {
      const size_t before = cache.evictable();
      EXPECT_EQ(cache.Evict().has_value(), before > 0);
    }
    std::set<BlockKey> held;
    for (const Lane& lane : lanes) {
      for (size_t i = 0; i < lane.held; ++i) held.insert(lane.chain.blocks()[i].key);
      ASSERT_EQ(cache.Match(lane.chain, lane.held), lane.held) << "a held block went away";
    }
    ASSERT_EQ(cache.blocks() - held.size(), cache.evictable());
  }
  size_t left = cache.evictable();
  while (cache.Evict()) --left;
  EXPECT_EQ(left, 0u);
}

}  // namespace
}  // namespace expertmesh::attention_worker
