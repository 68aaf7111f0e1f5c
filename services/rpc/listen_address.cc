#include "services/rpc/listen_address.h"

#include <spdlog/spdlog.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/rpc/unix_socket.h"

namespace expertmesh::rpc {
namespace {

bool IsLocal(const std::string& listen) {
  return absl::StartsWith(listen, "127.") || absl::StartsWith(listen, "localhost:") ||
         absl::StartsWith(listen, "[::1]:");
}

// "host:port" with a port from 0 to 65535; gRPC itself takes a larger one modulo 65536.
absl::Status CheckPort(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  int port = -1;
  if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &port) ||
      port < 0 || port > 65535) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("cannot listen on \"", listen,
                                    "\": want HOST:PORT with a port from 0 to 65535 (0 chooses "
                                    "one), or unix:PATH"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PrepareAddress(const std::string& listen) {
  const auto unix_path = UnixPath(listen);
  if (unix_path) return ClearUnixPath(*unix_path);
  EM_RETURN_IF_ERROR(CheckPort(listen));
  if (!IsLocal(listen)) {
    spdlog::warn("gRPC on {} is neither encrypted nor authenticated; keep it inside the cluster",
                 listen);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::rpc
