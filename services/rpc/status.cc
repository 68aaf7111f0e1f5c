#include "services/rpc/status.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "google/rpc/error_details.pb.h"
#include "services/base/status.h"

namespace expertmesh::rpc {
namespace {

using base::Reason;

constexpr int kCodeMax =
    16;  // UNAUTHENTICATED; the canonical codes of gRPC and abseil are the same

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

// The code may differ from the reason's own, so the status is built by hand around Error()'s
// payloads.
absl::Status Build(absl::StatusCode code, Reason reason, const std::string& message,
                   std::map<std::string, std::string> metadata) {
  const absl::Status model = base::Error(reason, message, std::move(metadata));
  if (model.code() == code) return model;
  absl::Status status(code, message);
  model.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { status.SetPayload(url, payload); });
  return status;
}

// Length of the UTF-8 character at text[at], 0 if there is none (overlong forms and surrogates are
// none).
size_t CharacterBytes(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto follows = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(at);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF && follows(at + 1)) return 2;
  if (!follows(at + 1) || !follows(at + 2)) return 0;
  const unsigned second = byte(at + 1);
  if (first == 0xE0) return second >= 0xA0 ? 3 : 0;
  if (first == 0xED) return second < 0xA0 ? 3 : 0;
  if (first >= 0xE1 && first <= 0xEF) return 3;
  if (!follows(at + 3)) return 0;
  if (first == 0xF0) return second >= 0x90 ? 4 : 0;
  if (first == 0xF4) return second < 0x90 ? 4 : 0;
  return first >= 0xF1 && first <= 0xF3 ? 4 : 0;
}

// proto3 strings must be UTF-8: another protobuf would refuse the whole message. A file name in a
// message may hold anything.
std::string Utf8(std::string text, size_t bytes_max = std::string::npos) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t bytes = CharacterBytes(text, at);
    if (bytes == 0) text[at] = '?';
    if (at + std::max<size_t>(bytes, 1) > bytes_max) break;
    at += std::max<size_t>(bytes, 1);
  }
  text.resize(at);
  return text;
}

google::rpc::Status Pack(const absl::Status& status, std::string message,
                         const std::map<std::string, std::string>& metadata) {
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  out.set_message(std::move(message));
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(base::ReasonName(base::ReasonOf(status))));
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[Utf8(key)] = Utf8(value);
  out.add_details()->PackFrom(info);
  return out;
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  if (status.ok()) return {};
  return Pack(status, Utf8(std::string(status.message())), base::MetadataOf(status));
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
  const std::string message = Utf8(std::string(status.message()), kStatusMessageBytesMax);
  auto metadata = base::MetadataOf(status);
  std::string details = Pack(status, message, metadata).SerializeAsString();
  while (details.size() > kStatusDetailsBytesMax && !metadata.empty()) {
    metadata.erase(std::max_element(metadata.begin(), metadata.end(), [](auto& a, auto& b) {
      return a.first.size() + a.second.size() < b.first.size() + b.second.size();
    }));
    details = Pack(status, message, metadata).SerializeAsString();
  }
  return {static_cast<grpc::StatusCode>(status.code()), message, details};
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
