#include "gateway/core/api_error.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

using base::Reason;

constexpr int kRetryAfterS = 1;

struct Row {
  int http_status;
  const char* type;
  int retry_after_s = 0;
};

Row RowOf(Reason reason) {
  switch (reason) {
    case Reason::kInvalidArgument:
    case Reason::kSchemaUnsupported:
    case Reason::kContextLengthExceeded:
    case Reason::kChatEncodingUnknown:
    case Reason::kUnsupported:
    case Reason::kDebugApiDisabled:
      return {400, "invalid_request_error"};
    case Reason::kModelNotFound:
      return {404, "invalid_request_error"};
    case Reason::kQueueFull:
    case Reason::kKvExhausted:
      return {429, "overloaded_error", kRetryAfterS};
    case Reason::kDeadlineExceeded:
      return {504, "timeout_error"};
    case Reason::kNoAttentionWorker:
    case Reason::kExpertsUnavailable:
    case Reason::kEngramUnavailable:
    case Reason::kExpertNotHosted:
    case Reason::kEpochStale:
    case Reason::kEpochMismatch:
    case Reason::kPeerLost:
    case Reason::kNotReady:
    case Reason::kDraining:
    case Reason::kCancelled:  // by the worker: a client that left gets no answer
      return {503, "service_unavailable_error", kRetryAfterS};
    default:
      return {500, "server_error"};
  }
}

}  // namespace

ApiError ClientError(int http_status, std::string_view code, std::string message) {
  ApiError error;
  error.http_status = http_status;
  error.message = std::move(message);
  error.code = std::string(code);
  return error;
}

ApiError BadField(std::string_view field, std::string_view what) {
  ApiError error =
      ClientError(400, "invalid_value", absl::StrCat(std::string(field), " ", std::string(what)));
  error.param = std::string(field);
  return error;
}

ApiError FromStatus(const absl::Status& status) {
  const Reason reason = base::ReasonOf(status);
  const Row row = RowOf(reason);
  ApiError error;
  error.http_status = row.http_status;
  error.message = std::string(status.message());
  error.type = row.type;
  error.code = absl::AsciiStrToLower(std::string(base::ReasonName(reason)));
  error.retry_after_s = row.retry_after_s;
  const auto metadata = base::MetadataOf(status);
  if (const auto param = metadata.find("param"); param != metadata.end()) {
    error.param = param->second;
  }
  return error;
}

}  // namespace expertmesh::gateway
