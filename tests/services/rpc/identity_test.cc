#include "services/rpc/identity.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "services/base/status.h"

namespace expertmesh::rpc {
namespace {

using base::Reason;
using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

TEST(Identity, KnowsItsCharactersAndBounds) {
  EXPECT_TRUE(IsIdentityValue("Team-7_a.b"));
  EXPECT_TRUE(IsIdentityValue(std::string(kIdentityBytesMax, 'a')));
  EXPECT_FALSE(IsIdentityValue(std::string(kIdentityBytesMax + 1, 'a')));
  for (const std::string bad : {"", " ", "a b", "a/b", "a\n", "\xC3\xA4", "!", "a:b"}) {
    EXPECT_FALSE(IsIdentityValue(bad)) << bad;
  }
}

TEST(Identity, IsAnonymousWithoutMetadata) {
  const auto identity = IdentityFrom({});
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(identity->tenant, "anonymous");
  EXPECT_EQ(identity->principal, "anonymous");
  EXPECT_EQ(identity->request_id, "");
}

TEST(Identity, ReadsAllThree) {
  const auto identity = IdentityFrom(Metadata{{"x-expertmesh-tenant", "t"},
                                              {"x-expertmesh-principal", "p"},
                                              {"x-request-id", "r"},
                                              {"other", "a b"}});
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(identity->tenant, "t");
  EXPECT_EQ(identity->principal, "p");
  EXPECT_EQ(identity->request_id, "r");
}

TEST(Identity, RefusesBadAndDoubleValues) {
  for (const char* key : {"x-expertmesh-tenant", "x-expertmesh-principal", "x-request-id"}) {
    for (const Metadata& metadata :
         {Metadata{{key, ""}}, Metadata{{key, "a b"}}, Metadata{{key, "a"}, {key, "b"}}}) {
      const absl::Status status = IdentityFrom(metadata).status();
      EXPECT_EQ(base::ReasonOf(status), Reason::kBadMetadata) << key;
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    }
  }
}

}  // namespace
}  // namespace expertmesh::rpc
