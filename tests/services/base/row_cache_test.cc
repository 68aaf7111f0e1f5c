#include "services/base/row_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace expertmesh::base {
namespace {

std::array<std::byte, 8> Row(uint64_t table, uint64_t row) {
  std::array<std::byte, 8> bytes;
  const uint64_t value = table * 1'000'003 + row;
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

TEST(RowCacheTest, KeepsWhatIsUsed) {
  RowCache cache(3, 8);
  for (uint64_t row = 0; row < 3; ++row) cache.Put(1, row, Row(1, row).data());
  EXPECT_NE(cache.Find(1, 0), nullptr);
  EXPECT_NE(cache.Find(1, 2), nullptr);
  EXPECT_EQ(cache.Find(2, 0), nullptr);
  cache.Put(1, 3, Row(1, 3).data());  // row 1 is the one that nobody asked for
  EXPECT_EQ(cache.Find(1, 1), nullptr);
  EXPECT_NE(cache.Find(1, 0), nullptr);
  EXPECT_NE(cache.Find(1, 3), nullptr);
  EXPECT_EQ(cache.size(), 3u);
}

TEST(RowCacheTest, NoRoomKeepsNothing) {
  RowCache cache(0, 8);
  cache.Put(1, 1, Row(1, 1).data());
  EXPECT_EQ(cache.Find(1, 1), nullptr);
}

TEST(RowCacheTest, AHitIsAlwaysTheRightRow) {
  RowCache cache(64, 8);
  std::mt19937_64 random(1);
  size_t hits = 0;
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t table = random() % 3;
    const uint64_t row = random() % 64;
    const auto bytes = Row(table, row);
    const std::byte* found = cache.Find(table, row);
    if (found != nullptr) {
      ++hits;
      ASSERT_EQ(std::memcmp(found, bytes.data(), bytes.size()), 0);
    } else {
      cache.Put(table, row, bytes.data());
    }
    ASSERT_LE(cache.size(), 64u);
  }
  EXPECT_GT(hits, 20'000u);
}

}  // namespace
}  // namespace expertmesh::base
