// Addresses of the form "unix:/path" and what may stand at such a path before a server binds it.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace expertmesh::rpc {

/// The path of "unix:/path", "unix:path" or "unix:///path"; nothing for another kind of address.
std::optional<std::string> UnixPath(const std::string& address);

/// Removes the socket that an earlier process left behind at `path`. kInvalidArgument if the path
/// is empty or longer than 107 bytes, if another process listens there, or if it is a file that is
/// not a socket.
absl::Status ClearUnixPath(const std::string& path);

}  // namespace expertmesh::rpc
