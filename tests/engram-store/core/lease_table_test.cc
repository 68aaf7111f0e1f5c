#include "engram-store/core/lease_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::engram_store {
namespace {

using base::Instant;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(LeaseTableTest, ALeaseLivesUntilItsTimeIsOver) {
  LeaseTable leases(100);
  const Instant start{5};
  const uint64_t a = leases.Acquire("v1", seconds(10), start);
  const uint64_t b = leases.Acquire("v1", seconds(20), start);
  const uint64_t c = leases.Acquire("v2", seconds(20), start);
  EXPECT_EQ(a, 100u);
  EXPECT_NE(b, c);
  EXPECT_EQ(leases.Count("v1", start), 2u);
  EXPECT_THAT(leases.Leased(start + seconds(9)), ElementsAre("v1", "v2"));
  EXPECT_EQ(leases.Count("v1", start + seconds(10)), 1u);
  EXPECT_FALSE(leases.Renew(a, start + seconds(10)));
  EXPECT_TRUE(leases.Renew(b, start + seconds(19)));
  EXPECT_THAT(leases.Leased(start + seconds(20)), ElementsAre("v1"));
  EXPECT_EQ(leases.size(start + seconds(38)), 1u);
  EXPECT_THAT(leases.Leased(start + seconds(39)), IsEmpty());
  EXPECT_FALSE(leases.Renew(b, start + seconds(39)));
}

TEST(LeaseTableTest, AReleasedLeaseIsOver) {
  LeaseTable leases(1);
  const uint64_t a = leases.Acquire("v1", seconds(10), {});
  leases.Release(a);
  leases.Release(a);
  leases.Release(77);
  EXPECT_EQ(leases.Count("v1", {}), 0u);
  EXPECT_FALSE(leases.Renew(a, {}));
}

}  // namespace
}  // namespace expertmesh::engram_store
