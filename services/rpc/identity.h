// Who calls, and how long they will wait: tenant, principal and request id from the metadata
// (docs/protocol.md §4), and the deadline that every call must carry.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <string>

#include "absl/status/statusor.h"

namespace expertmesh::rpc {

struct Identity {
  std::string tenant = "anonymous";
  std::string principal = "anonymous";
  std::string request_id;
};

/// kBadMetadata if a value is longer than 128 bytes or has a character outside [A-Za-z0-9._-].
absl::StatusOr<Identity> IdentityOf(const grpc::ServerContextBase& context);

/// kDeadlineRequired if the call has none. Handlers of unary calls and Generate ask first.
absl::Status RequireDeadline(const grpc::ServerContextBase& context);
/// Time left of the call, never negative; a day if it has no deadline.
std::chrono::microseconds Remaining(const grpc::ServerContextBase& context);

/// Sets metadata and deadline of an outgoing call.
void PrepareClient(grpc::ClientContext& context, const Identity& identity,
                   std::chrono::microseconds budget);

}  // namespace expertmesh::rpc
