// An error as an OpenAI client sees it: HTTP status and the fields of the error object. Pure.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace expertmesh::gateway {

struct ApiError {
  int http_status = 500;
  std::string message = {};
  std::string type = "invalid_request_error";
  std::string param = {};  // the field at fault; empty = null
  std::string code = {};   // e.g. "context_length_exceeded"; empty = null
  int retry_after_s = 0;   // > 0: a Retry-After header
};

/// The client's own mistake: 4xx, type invalid_request_error.
ApiError ClientError(int http_status, std::string_view code, std::string message);
/// 400 naming a field: "<field> <what>".
ApiError BadField(std::string_view field, std::string_view what);

/// A status of the mesh by its reason: 503 with the reason in lower case as code where a retry may
/// help, 429 for full queues, 400 for what the caller can mend (metadata "param" names the field),
/// 500 otherwise.
ApiError FromStatus(const absl::Status& status);

}  // namespace expertmesh::gateway
