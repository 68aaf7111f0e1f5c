// Sockets of dispatch streams: TCP, or Unix ("unix:PATH").
#pragma once

#include <netdb.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/transport/unique_fd.h"

namespace expertmesh::transport::internal {

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t bytes = 0;
};

/// The addresses of "HOST:PORT" or "unix:PATH", never none. Asks the name service only with
/// `names`, which can take seconds; without it kInvalidArgument for a name. kPeerLost if there are
/// none.
absl::StatusOr<std::vector<SocketAddress>> Resolve(const std::string& address, bool names);

/// A socket that listens there, not blocking, for 0.0.0.0 as for [::] in both families; `bound` is
/// the address with the port that it got. Errors as rpc::PrepareAddress, and kInvalidArgument if
/// the address is taken or there is no such name.
absl::StatusOr<UniqueFd> ListenAt(const std::string& address, std::string& bound);
/// The next connection, if there is one; not blocking.
UniqueFd Accept(const UniqueFd& listener);
/// Begins to connect, not blocking: the socket can be written to when it has.
absl::StatusOr<UniqueFd> Connect(const SocketAddress& address);
/// What a connection ended with; OK if it stands.
absl::Status ConnectionError(const UniqueFd& socket);

}  // namespace expertmesh::transport::internal
