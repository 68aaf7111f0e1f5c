#include "services/rpc/status.h"

#include <map>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "services/base/status.h"

namespace expertmesh::rpc {
namespace {

using base::Reason;

constexpr int kCodeMax = 16;  // UNAUTHENTICATED; the canonical codes of gRPC and abseil are the same

absl::StatusCode CodeOf(int code) {
  return code >= 0 && code <= kCodeMax ? static_cast<absl::StatusCode>(code)
                                       : absl::StatusCode::kUnknown;
}

Reason ReasonFor(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kCancelled:
      return Reason::kCancelled;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return Reason::kInvalidArgument;
    case absl::StatusCode::kDeadlineExceeded:
      return Reason::kDeadlineExceeded;
    case absl::StatusCode::kNotFound:
      return Reason::kModelNotFound;
    case absl::StatusCode::kResourceExhausted:
      return Reason::kQueueFull;
    case absl::StatusCode::kUnavailable:
      return Reason::kPeerLost;
    case absl::StatusCode::kUnimplemented:
      return Reason::kUnsupported;
    default:
      return Reason::kInternal;
  }
}

// The code may differ from the reason's own, so the status is built by hand around Error()'s payloads.
absl::Status Build(absl::StatusCode code, Reason reason, const std::string& message,
                   std::map<std::string, std::string> metadata) {
  const absl::Status model = base::Error(reason, message, std::move(metadata));
  if (model.code() == code) return model;
  absl::Status status(code, message);
  model.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    status.SetPayload(url, payload);
  });
  return status;
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  if (status.ok()) return out;
  out.set_message(std::string(status.message()));
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(base::ReasonName(base::ReasonOf(status))));
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : base::MetadataOf(status)) (*info.mutable_metadata())[key] = value;
  out.add_details()->PackFrom(info);
  return out;
}

absl::Status FromRpcStatus(const google::rpc::Status& status) {
  const absl::StatusCode code = CodeOf(status.code());
  if (code == absl::StatusCode::kOk) return absl::OkStatus();
  Reason reason = ReasonFor(code);
  std::map<std::string, std::string> metadata;
  for (const auto& detail : status.details()) {
    google::rpc::ErrorInfo info;
    if (!detail.UnpackTo(&info) || info.domain() != kErrorDomain) continue;
    const Reason named = base::ReasonFromName(info.reason());
    if (named != Reason::kUnspecified) reason = named;
    metadata.insert(info.metadata().begin(), info.metadata().end());
  }
  return Build(code, reason, status.message(), std::move(metadata));
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
          ToRpcStatus(status).SerializeAsString()};
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  google::rpc::Status detailed;
  // Details of foreign or broken form are passed over; code and message still count.
  if (!detailed.ParseFromString(status.error_details())) detailed.Clear();
  detailed.set_code(static_cast<int>(status.error_code()));
  detailed.set_message(status.error_message());
  return FromRpcStatus(detailed);
}

}  // namespace expertmesh::rpc
