#include "services/base/status.h"

#include <gtest/gtest.h>

namespace expertmesh::base {
namespace {

TEST(Status, CarriesCodeReasonAndMetadata) {
  const std::map<std::string, std::string> metadata = {
      {"expert", "17"}, {"bytes", std::string("a:b\0c", 5)}, {"", "empty key"}, {"empty", ""}};
  const absl::Status status = Error(Reason::kExpertNotHosted, "ask another worker", metadata);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), Reason::kExpertNotHosted);
  EXPECT_EQ(MetadataOf(status), metadata);
}

TEST(Status, EveryReasonHasANameACodeAndComesBack) {
  for (int i = 1; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    EXPECT_EQ(ReasonFromName(ReasonName(reason)), reason) << i;
    const absl::Status status = Error(reason, "text");
    EXPECT_FALSE(status.ok()) << i;
    EXPECT_EQ(status.code(), CodeOf(reason)) << i;
    EXPECT_EQ(ReasonOf(status), reason) << i;
  }
}

TEST(Status, ForeignValuesAreUnspecified) {
  EXPECT_EQ(ReasonOf(absl::OkStatus()), Reason::kUnspecified);
  EXPECT_EQ(ReasonOf(absl::InternalError("no reason attached")), Reason::kUnspecified);
  EXPECT_TRUE(MetadataOf(absl::InternalError("none")).empty());
  EXPECT_EQ(ReasonFromName("NO_SUCH_REASON"), Reason::kUnspecified);
  EXPECT_EQ(ReasonName(static_cast<Reason>(kReasonCount)), "UNSPECIFIED");
  EXPECT_EQ(ReasonName(static_cast<Reason>(-1)), "UNSPECIFIED");
}

TEST(Status, AnnotateKeepsEverythingButTheText) {
  const absl::Status inner = Error(Reason::kBadConfig, "hidden_size is missing", {{"key", "v"}});
  const absl::Status outer = Annotate(inner, "config.json: ");
  EXPECT_EQ(outer.message(), "config.json: hidden_size is missing");
  EXPECT_EQ(outer.code(), inner.code());
  EXPECT_EQ(ReasonOf(outer), Reason::kBadConfig);
  EXPECT_EQ(MetadataOf(outer), MetadataOf(inner));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "prefix").ok());
}

absl::StatusOr<int> Half(int value) {
  if (value % 2 != 0) return Error(Reason::kInvalidArgument, "odd");
  return value / 2;
}

absl::Status Quarter(int value, int& out) {
  EM_ASSIGN_OR_RETURN(const int half, Half(value));
  EM_ASSIGN_OR_RETURN(out, Half(half));
  EM_RETURN_IF_ERROR(absl::OkStatus());
  return absl::OkStatus();
}

TEST(Status, MacrosReturnTheFirstError) {
  int out = 0;
  EXPECT_TRUE(Quarter(12, out).ok());
  EXPECT_EQ(out, 3);
  EXPECT_EQ(ReasonOf(Quarter(6, out)), Reason::kInvalidArgument);
  EXPECT_EQ(out, 3);
}

}  // namespace
}  // namespace expertmesh::base
