#include "engram-store/core/lookup_limits.h"

#include <gtest/gtest.h>

#include "services/base/status.h"

namespace expertmesh::engram_store {
namespace {

using base::Reason;
using base::ReasonOf;

TEST(LookupLimitsTest, Rows) {
  EXPECT_TRUE(CheckRowLookup(0).ok());
  EXPECT_TRUE(CheckRowLookup(65536).ok());
  EXPECT_EQ(ReasonOf(CheckRowLookup(65537)), Reason::kInvalidArgument);
}

TEST(LookupLimitsTest, Tokens) {
  EXPECT_TRUE(CheckTokenLookup(0, 0).ok());
  EXPECT_TRUE(CheckTokenLookup(65536, 65536).ok());
  EXPECT_EQ(ReasonOf(CheckTokenLookup(65537, 0)), Reason::kInvalidArgument);
  EXPECT_EQ(ReasonOf(CheckTokenLookup(3, 4)), Reason::kInvalidArgument);
}

TEST(LookupLimitsTest, BytesAreBoundedToo) {
  EXPECT_TRUE(CheckRowBytes(65536, 1024).ok());
  EXPECT_EQ(base::ReasonOf(CheckRowBytes(65536, 1025)), base::Reason::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::engram_store
