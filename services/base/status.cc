#include "services/base/status.h"

#include <array>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace expertmesh::base {
namespace {

constexpr char kReasonUrl[] = "expertmesh/reason";
constexpr char kMetadataUrl[] = "expertmesh/metadata";

struct ReasonRow {
  std::string_view name;
  absl::StatusCode code;
};

constexpr std::array<ReasonRow, kReasonCount> kReasons = {{
    {"UNSPECIFIED", absl::StatusCode::kUnknown},
    {"BAD_CHECKPOINT", absl::StatusCode::kDataLoss},
    {"BAD_TOKENIZER", absl::StatusCode::kDataLoss},
    {"BAD_CONFIG", absl::StatusCode::kInvalidArgument},
    {"INVALID_ARGUMENT", absl::StatusCode::kInvalidArgument},
    {"CONTEXT_LENGTH_EXCEEDED", absl::StatusCode::kInvalidArgument},
    {"MODEL_NOT_FOUND", absl::StatusCode::kNotFound},
    {"EXPERT_NOT_HOSTED", absl::StatusCode::kFailedPrecondition},
    {"EXPERTS_UNAVAILABLE", absl::StatusCode::kUnavailable},
    {"EPOCH_STALE", absl::StatusCode::kFailedPrecondition},
    {"EPOCH_MISMATCH", absl::StatusCode::kFailedPrecondition},
    {"FRAME_VERSION", absl::StatusCode::kInvalidArgument},
    {"FRAME_MALFORMED", absl::StatusCode::kInvalidArgument},
    {"FRAME_CHECKSUM", absl::StatusCode::kDataLoss},
    {"NON_FINITE", absl::StatusCode::kDataLoss},
    {"DEADLINE_EXCEEDED", absl::StatusCode::kDeadlineExceeded},
    {"CANCELLED", absl::StatusCode::kCancelled},
    {"QUEUE_FULL", absl::StatusCode::kResourceExhausted},
    {"KV_EXHAUSTED", absl::StatusCode::kResourceExhausted},
    {"NO_ATTENTION_WORKER", absl::StatusCode::kUnavailable},
    {"PEER_LOST", absl::StatusCode::kUnavailable},
    {"NOT_READY", absl::StatusCode::kUnavailable},
    {"DRAINING", absl::StatusCode::kUnavailable},
    {"DEBUG_API_DISABLED", absl::StatusCode::kPermissionDenied},
    {"MODEL_HAS_NO_MEMORY", absl::StatusCode::kNotFound},
    {"DEADLINE_REQUIRED", absl::StatusCode::kInvalidArgument},
    {"CHAT_ENCODING_UNKNOWN", absl::StatusCode::kInvalidArgument},
    {"UNSUPPORTED", absl::StatusCode::kUnimplemented},
    {"INTERNAL", absl::StatusCode::kInternal},
    {"PROFILE_MISMATCH", absl::StatusCode::kFailedPrecondition},
    {"BAD_METADATA", absl::StatusCode::kInvalidArgument},
    {"LANE_NOT_FOUND", absl::StatusCode::kNotFound},
    {"LANE_NOT_PARKED", absl::StatusCode::kFailedPrecondition},
    {"ENGRAM_VERSION_NOT_FOUND", absl::StatusCode::kNotFound},
    {"ENGRAM_ROW_NOT_FOUND", absl::StatusCode::kNotFound},
    {"ENGRAM_CHECKSUM", absl::StatusCode::kDataLoss},
    {"ENGRAM_UNAVAILABLE", absl::StatusCode::kUnavailable},
    {"DISK_FULL", absl::StatusCode::kResourceExhausted},
    {"PERMISSION_DENIED", absl::StatusCode::kPermissionDenied},
    {"SCHEMA_UNSUPPORTED", absl::StatusCode::kInvalidArgument},
}};

const ReasonRow& Row(Reason reason) {
  const auto index = static_cast<size_t>(reason);
  return index < kReasons.size() ? kReasons[index] : kReasons[0];
}

}  // namespace

std::string_view ReasonName(Reason reason) { return Row(reason).name; }

Reason ReasonFromName(std::string_view name) {
  for (size_t i = 0; i < kReasons.size(); ++i) {
    if (kReasons[i].name == name) return static_cast<Reason>(i);
  }
  return Reason::kUnspecified;
}

absl::StatusCode CodeOf(Reason reason) { return Row(reason).code; }

absl::Status Error(Reason reason, std::string_view message,
                   std::map<std::string, std::string> metadata) {
  absl::Status status(CodeOf(reason), absl::string_view(message.data(), message.size()));
  const std::string_view name = ReasonName(reason);
  status.SetPayload(kReasonUrl, absl::Cord(absl::string_view(name.data(), name.size())));
  if (!metadata.empty()) {
    // Length-prefixed so that any byte may stand in a value.
    std::string packed;
    for (const auto& [key, value] : metadata) {
      absl::StrAppend(&packed, key.size(), ":", key, value.size(), ":", value);
    }
    status.SetPayload(kMetadataUrl, absl::Cord(packed));
  }
  return status;
}

Reason ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kReasonUrl);
  return payload ? ReasonFromName(std::string(*payload)) : Reason::kUnspecified;
}

std::map<std::string, std::string> MetadataOf(const absl::Status& status) {
  std::map<std::string, std::string> metadata;
  const auto payload = status.GetPayload(kMetadataUrl);
  if (!payload) return metadata;
  const std::string packed(*payload);
  size_t at = 0;
  const auto next = [&]() {
    const size_t colon = packed.find(':', at);
    const size_t length = std::stoul(packed.substr(at, colon - at));
    std::string field = packed.substr(colon + 1, length);
    at = colon + 1 + length;
    return field;
  };
  while (at < packed.size()) {
    std::string key = next();
    metadata[key] = next();
  }
  return metadata;
}

absl::Status Annotate(const absl::Status& status, std::string_view prefix) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(std::string(prefix), status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace expertmesh::base
