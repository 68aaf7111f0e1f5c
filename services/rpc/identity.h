// Who calls, and how long they will wait: tenant, principal and request id from the metadata
// (docs/protocol.md §4), and the deadline that every call must carry. Pure functions, any thread.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace expertmesh::rpc {

struct Identity {
  std::string tenant = "anonymous";
  std::string principal = "anonymous";
  std::string request_id = {};  // "" = none
};

inline constexpr size_t kIdentityBytesMax = 128;
/// 1 to 128 bytes of [A-Za-z0-9._-]. A process asks before it takes a value from a client over.
bool IsIdentityValue(std::string_view value);

/// kBadMetadata if a value breaks the rule above or comes twice. The server ends such a call with
/// that error whatever the handler answers; a handler that acts on the identity asks before it
/// acts.
absl::StatusOr<Identity> IdentityOf(const grpc::ServerContextBase& context);
/// The same, of metadata as gRPC holds it.
absl::StatusOr<Identity> IdentityFrom(
    const std::multimap<grpc::string_ref, grpc::string_ref>& metadata);

/// kDeadlineRequired if the call has none. Handlers of unary calls and Generate ask first.
absl::Status RequireDeadline(const grpc::ServerContextBase& context);
/// Time left of the call, never negative; a day if it has no deadline. On the wire gRPC rounds it
/// up, by at most about 1 %.
std::chrono::microseconds Remaining(const grpc::ServerContextBase& context);

/// Sets metadata and deadline of an outgoing call: at most a day; a spent budget ends it at once.
/// gRPC aborts a process that sends bytes it does not allow, and a changed name could be another
/// tenant's: a value out of bounds is sent as "!", which every server refuses with kBadMetadata.
void PrepareClient(grpc::ClientContext& context, const Identity& identity,
                   std::chrono::microseconds budget);

}  // namespace expertmesh::rpc
