// Whether a process can listen at an address.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace expertmesh::rpc {

/// "HOST:PORT" with a port from 0 to 65535, or "unix:PATH": removes the socket that an earlier
/// process left there, and warns of an address that others than this host reach. kInvalidArgument
/// as ClearUnixPath, or for another form.
absl::Status PrepareAddress(const std::string& listen);

}  // namespace expertmesh::rpc
