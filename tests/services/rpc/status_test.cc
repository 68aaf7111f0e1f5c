#include "services/rpc/status.h"

#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "services/base/random.h"
#include "services/base/status.h"

namespace expertmesh::rpc {
namespace {

using base::Reason;
using Metadata = std::map<std::string, std::string>;

TEST(Status, EveryReasonSurvivesTheWire) {
  for (int i = 1; i < base::kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    const absl::Status status = base::Error(reason, "what to do", {{"experts", "3-5"}});
    for (const absl::Status& back :
         {FromGrpcStatus(ToGrpcStatus(status)), FromRpcStatus(ToRpcStatus(status))}) {
      EXPECT_EQ(back.code(), base::CodeOf(reason));
      EXPECT_EQ(base::ReasonOf(back), reason);
      EXPECT_EQ(back.message(), "what to do");
      EXPECT_EQ(base::MetadataOf(back), (Metadata{{"experts", "3-5"}}));
    }
  }
}

TEST(Status, OkStaysOk) {
  EXPECT_TRUE(FromGrpcStatus(ToGrpcStatus(absl::OkStatus())).ok());
  EXPECT_TRUE(FromRpcStatus(ToRpcStatus(absl::OkStatus())).ok());
}

TEST(Status, CarriesOneErrorInfoOfOurDomain) {
  const grpc::Status status = ToGrpcStatus(base::Error(Reason::kQueueFull, "later"));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), static_cast<int>(grpc::StatusCode::RESOURCE_EXHAUSTED));
  ASSERT_EQ(details.details_size(), 1);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "QUEUE_FULL");
  EXPECT_EQ(info.domain(), "expertmesh");
}

TEST(Status, WithoutDetailsTheCodeGivesTheReason) {
  const std::map<grpc::StatusCode, Reason> expected = {
      {grpc::StatusCode::UNAVAILABLE, Reason::kPeerLost},
      {grpc::StatusCode::DEADLINE_EXCEEDED, Reason::kDeadlineExceeded},
      {grpc::StatusCode::CANCELLED, Reason::kCancelled},
      {grpc::StatusCode::UNIMPLEMENTED, Reason::kUnsupported},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, Reason::kQueueFull},
      {grpc::StatusCode::INVALID_ARGUMENT, Reason::kInvalidArgument},
      {grpc::StatusCode::INTERNAL, Reason::kInternal},
  };
  for (const auto& [code, reason] : expected) {
    const absl::Status status = FromGrpcStatus({code, "m"});
    EXPECT_EQ(static_cast<int>(status.code()), static_cast<int>(code));
    EXPECT_EQ(base::ReasonOf(status), reason);
  }
  for (int code = 1; code <= 20; ++code) {
    const absl::Status status = FromGrpcStatus({static_cast<grpc::StatusCode>(code), "m"});
    EXPECT_FALSE(status.ok());
    EXPECT_NE(base::ReasonOf(status), Reason::kUnspecified) << code;
  }
}

TEST(Status, AStatusWithoutAReasonGetsOneAtTheReceiver) {
  const absl::Status back = FromGrpcStatus(ToGrpcStatus(absl::UnavailableError("gone")));
  EXPECT_EQ(back.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(base::ReasonOf(back), Reason::kPeerLost);
}

TEST(Status, IgnoresDetailsOfAnotherDomainAndUnknownReasons) {
  google::rpc::ErrorInfo info;
  info.set_reason("DRAINING");
  info.set_domain("example.com");
  google::rpc::Status packed;
  packed.add_details()->PackFrom(info);
  EXPECT_EQ(base::ReasonOf(
                FromGrpcStatus({grpc::StatusCode::UNAVAILABLE, "m", packed.SerializeAsString()})),
            Reason::kPeerLost);

  info.set_reason("A_REASON_OF_A_LATER_VERSION");
  info.set_domain(kErrorDomain);
  (*info.mutable_metadata())["key"] = "value";
  packed.mutable_details(0)->PackFrom(info);
  const absl::Status status =
      FromGrpcStatus({grpc::StatusCode::UNAVAILABLE, "m", packed.SerializeAsString()});
  EXPECT_EQ(base::ReasonOf(status), Reason::kPeerLost);
  EXPECT_EQ(base::MetadataOf(status), (Metadata{{"key", "value"}}));
}

TEST(Status, BrokenDetailsOnlyLoseTheDetails) {
  const google::protobuf::LogSilencer silencer;
  const std::string good =
      ToGrpcStatus(base::Error(Reason::kDraining, "m", {{"a", "b"}})).error_details();
  for (uint32_t run = 0; run < 2000; ++run) {
    const auto random = base::Philox({7, 0}, {run, 0, 0, 0});
    std::string bytes = good.substr(0, random[0] % (good.size() + 1));
    if (!bytes.empty()) bytes[random[1] % bytes.size()] = static_cast<char>(random[2]);
    const absl::Status status = FromGrpcStatus({grpc::StatusCode::UNAVAILABLE, "m", bytes});
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(status.message(), "m");
    EXPECT_NE(base::ReasonOf(status), Reason::kUnspecified);
  }
}

TEST(Status, StaysBelowTheLimitOfHeaders) {
  const absl::Status status =
      base::Error(Reason::kExpertNotHosted, std::string(100000, 'x'),
                  {{"experts", std::string(50000, '7')}, {"worker", "expert-1"}});
  const grpc::Status sent = ToGrpcStatus(status);
  EXPECT_EQ(sent.error_message().size(), kStatusMessageBytesMax);
  EXPECT_LE(sent.error_details().size(), kStatusDetailsBytesMax);
  const absl::Status back = FromGrpcStatus(sent);
  EXPECT_EQ(base::ReasonOf(back), Reason::kExpertNotHosted);
  EXPECT_EQ(base::MetadataOf(back), (Metadata{{"worker", "expert-1"}}));
  EXPECT_EQ(base::MetadataOf(FromRpcStatus(ToRpcStatus(status))).at("experts").size(), 50000u);
}

TEST(Status, SendsUtf8Only) {
  const std::map<std::string, std::string> cases = {
      {"caf\xC3\xA9", "caf\xC3\xA9"},              // é
      {"\xF0\x9F\x98\x80!", "\xF0\x9F\x98\x80!"},  // an emoji
      {"bad\xFF", "bad?"},
      {"\xC3", "?"},
      {"\xC0\x80", "??"},
      {"\xED\xA0\x80", "???"},
      {"\xE2\x82", "??"},
      {"\xF4\x90\x80\x80", "????"},
  };
  for (const auto& [text, expected] : cases) {
    const absl::Status status = base::Error(Reason::kBadConfig, text, {{"file", text}});
    const absl::Status back = FromGrpcStatus(ToGrpcStatus(status));
    EXPECT_EQ(back.message(), expected);
    EXPECT_EQ(base::MetadataOf(back).at("file"), expected);
    EXPECT_EQ(base::ReasonOf(back), Reason::kBadConfig);
  }
  // The cut falls between characters.
  const std::string umlauts = "x" + [] {
    std::string text;
    for (int i = 0; i < 2000; ++i) text += "\xC3\xA4";
    return text;
  }();
  EXPECT_EQ(ToGrpcStatus(base::Error(Reason::kBadConfig, umlauts)).error_message().size(),
            kStatusMessageBytesMax - 1);
}

}  // namespace
}  // namespace expertmesh::rpc
