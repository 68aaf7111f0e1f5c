// An error as an OpenAI client sees it: HTTP status and the fields of the error object. Pure.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace expertmesh::gateway {

struct ApiError {
  int http_status = 500;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param;  // the field at fault; empty = null
  std::string code;   // e.g. "context_length_exceeded"; empty = null
  int retry_after_s = 0;  // > 0: a Retry-After header
};

/// 400 naming a field.
ApiError BadField(const std::string& field, const std::string& what);

/// A status of the mesh by its reason: 503 with the reason as code where a retry may help, 429 for full
/// queues, 400 for what the caller can mend, 500 otherwise.
ApiError FromStatus(const absl::Status& status);

}  // namespace expertmesh::gateway
