#include "gateway/core/api_error.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

using base::Reason;

ApiError BadField(const std::string& field, const std::string& what) {
  ApiError error;
  error.http_status = 400;
  error.message = absl::StrCat(field, " ", what);
  error.param = field;
  error.code = "invalid_value";
  return error;
}

ApiError FromStatus(const absl::Status& status) {
  const Reason reason = base::ReasonOf(status);
  ApiError error;
  error.message = std::string(status.message());
  error.code = absl::AsciiStrToLower(std::string(base::ReasonName(reason)));
  switch (reason) {
    case Reason::kInvalidArgument:
    case Reason::kContextLengthExceeded:
    case Reason::kChatEncodingUnknown:
    case Reason::kUnsupported:
      error.http_status = 400;
      break;
    case Reason::kModelNotFound:
      error.http_status = 404;
      break;
    case Reason::kQueueFull:
    case Reason::kKvExhausted:
      error.http_status = 429;
      error.type = "overloaded_error";
      error.retry_after_s = 1;
      break;
    case Reason::kDeadlineExceeded:
      error.http_status = 504;
      error.type = "timeout_error";
      break;
    case Reason::kNoAttentionWorker:
    case Reason::kExpertsUnavailable:
    case Reason::kExpertNotHosted:
    case Reason::kEpochStale:
    case Reason::kEpochMismatch:
    case Reason::kPeerLost:
    case Reason::kNotReady:
    case Reason::kDraining:
      error.http_status = 503;
      error.type = "service_unavailable_error";
      error.retry_after_s = 1;
      break;
    default:
      error.http_status = 500;
      error.type = "server_error";
      break;
  }
  return error;
}

}  // namespace expertmesh::gateway
