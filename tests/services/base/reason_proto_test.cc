// base::Reason and common.v1.ErrorReason are the same list, value for value.
#include <gtest/gtest.h>

#include <string>

#include "expertmesh/common/v1/common.pb.h"
#include "services/base/status.h"

namespace expertmesh::base {
namespace {

TEST(Reason, EqualsTheProtoEnum) {
  const google::protobuf::EnumDescriptor* proto = common::v1::ErrorReason_descriptor();
  ASSERT_EQ(proto->value_count(), kReasonCount);
  for (int i = 0; i < proto->value_count(); ++i) {
    const google::protobuf::EnumValueDescriptor* value = proto->value(i);
    EXPECT_EQ("ERROR_REASON_" + std::string(ReasonName(static_cast<Reason>(value->number()))),
              value->name());
  }
}

}  // namespace
}  // namespace expertmesh::base
