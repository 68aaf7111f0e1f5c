// Errors: absl::Status with a machine-readable reason (common.v1.ErrorReason), which travels
// between processes as google.rpc.ErrorInfo. Tests assert code + reason, never message text.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace expertmesh::base {

/// Mirrors expertmesh.common.v1.ErrorReason, value for value (a test compares the two).
enum class Reason : int {
  kUnspecified = 0,
  kBadCheckpoint = 1,
  kBadTokenizer = 2,
  kBadConfig = 3,
  kInvalidArgument = 4,
  kContextLengthExceeded = 5,
  kModelNotFound = 6,
  kExpertNotHosted = 7,
  kExpertsUnavailable = 8,
  kEpochStale = 9,
  kEpochMismatch = 10,
  kFrameVersion = 11,
  kFrameMalformed = 12,
  kFrameChecksum = 13,
  kNonFinite = 14,
  kDeadlineExceeded = 15,
  kCancelled = 16,
  kQueueFull = 17,
  kKvExhausted = 18,
  kNoAttentionWorker = 19,
  kPeerLost = 20,
  kNotReady = 21,
  kDraining = 22,
  kDebugApiDisabled = 23,
  kModelHasNoMemory = 24,
  kDeadlineRequired = 25,
  kChatEncodingUnknown = 26,
  kUnsupported = 27,
  kInternal = 28,
  kProfileMismatch = 29,
  kBadMetadata = 30,
  kLaneNotFound = 31,
  kLaneNotParked = 32,
  kEngramVersionNotFound = 33,
  kEngramRowNotFound = 34,
  kEngramChecksum = 35,
  kEngramUnavailable = 36,
  kDiskFull = 37,
  kPermissionDenied = 38,
  kSchemaUnsupported = 39,
};
inline constexpr int kReasonCount = 40;

/// "EXPERT_NOT_HOSTED" for kExpertNotHosted; "UNSPECIFIED" for an unknown value.
std::string_view ReasonName(Reason reason);
/// The reason with that name, or kUnspecified.
Reason ReasonFromName(std::string_view name);
/// The canonical code that goes with a reason, e.g. FAILED_PRECONDITION for kExpertNotHosted.
absl::StatusCode CodeOf(Reason reason);

/// A status with CodeOf(reason), the reason attached, and optional metadata (ErrorInfo.metadata).
absl::Status Error(Reason reason, std::string_view message,
                   std::map<std::string, std::string> metadata = {});
/// The reason attached to a status; kUnspecified if OK or without one.
Reason ReasonOf(const absl::Status& status);
/// The metadata attached by Error(); empty if none.
std::map<std::string, std::string> MetadataOf(const absl::Status& status);
/// The same status with text put before its message; code, reason and metadata stay.
absl::Status Annotate(const absl::Status& status, std::string_view prefix);

}  // namespace expertmesh::base

#define EM_RETURN_IF_ERROR(expr)             \
  do {                                       \
    absl::Status em_status_ = (expr);        \
    if (!em_status_.ok()) return em_status_; \
  } while (false)
#define EM_CONCAT_INNER_(a, b) a##b
#define EM_CONCAT_(a, b) EM_CONCAT_INNER_(a, b)
#define EM_ASSIGN_OR_RETURN(lhs, expr) \
  EM_ASSIGN_OR_RETURN_IMPL_(EM_CONCAT_(em_or_, __LINE__), lhs, expr)
#define EM_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  if (!tmp.ok()) return tmp.status();             \
  lhs = std::move(tmp).value()
