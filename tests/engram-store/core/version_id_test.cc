#include "engram-store/core/version_id.h"

#include <gtest/gtest.h>

#include <vector>

namespace expertmesh::engram_store {
namespace {

TEST(VersionIdTest, TheSumKnowsNoOrderAndTakesBack) {
  const std::vector<std::byte> a(10, std::byte{1});
  const std::vector<std::byte> b(10, std::byte{2});
  ContentSum one;
  one.Add(1, 0, a);
  one.Add(1, 1, b);
  ContentSum other;
  other.Add(1, 1, b);
  other.Add(1, 0, a);
  EXPECT_EQ(one.bytes(), other.bytes());
  other.Subtract(1, 1, b);
  EXPECT_NE(one.bytes(), other.bytes());
  other.Subtract(1, 0, a);
  EXPECT_EQ(other.bytes(), ContentSum().bytes());
  for (int i = 0; i < 100; ++i) other.Subtract(1, 5, a);  // wraps around, and comes back
  EXPECT_NE(other.bytes(), ContentSum().bytes());
  for (int i = 0; i < 100; ++i) other.Add(1, 5, a);
  EXPECT_EQ(ContentSum(other.bytes()).bytes(), ContentSum().bytes());
  ContentSum swapped;
  swapped.Add(1, 1, a);
  swapped.Add(1, 0, b);
  EXPECT_NE(swapped.bytes(), one.bytes());

  const TableShape shape{RowFormat::kF32, 2, {{1, 5}}};
  const TableShape wider{RowFormat::kF32, 3, {{1, 5}}};
  EXPECT_NE(VersionOf(shape, one), VersionOf(wider, one));
  EXPECT_NE(VersionOf(shape, one), VersionOf(shape, swapped));
  const std::string name = VersionName(VersionOf(shape, one));
  EXPECT_EQ(VersionFromName(name), VersionOf(shape, one));
  EXPECT_EQ(VersionFromName("nothing"), VersionBytes{});
}

}  // namespace
}  // namespace expertmesh::engram_store
