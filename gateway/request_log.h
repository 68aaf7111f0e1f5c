// One line of the log for every request that was answered, refused or failed; nothing of what the
// client said but its request id.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace expertmesh::gateway {

/// What the line says. Empty texts are left out.
struct RequestRecord {
  std::string request_id = {};
  std::string endpoint = {};  // EndpointLabel()'s, or "grpc_generate"
  std::string status = {};    // HTTP status, or the name of the gRPC code
  std::string reason = {};    // "stop", "length", or the code of the error
  std::string worker = {};
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
};

/// Any thread.
void LogRequest(const RequestRecord& record);

/// "req-" and 16 hexadecimal digits.
std::string NewRequestId();

}  // namespace expertmesh::gateway
