#include "services/rpc/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::rpc {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kPathBytesMax = sizeof(sockaddr_un::sun_path) - 1;

// True unless the system says that nobody listens.
bool Listens(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int result = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  const bool refused = result != 0 && (errno == ECONNREFUSED || errno == ENOENT);
  close(fd);
  return !refused;
}

}  // namespace

std::optional<std::string> UnixPath(const std::string& address) {
  if (absl::StartsWith(address, "unix:///")) return address.substr(sizeof("unix://") - 1);
  if (absl::StartsWith(address, "unix:")) return address.substr(sizeof("unix:") - 1);
  return std::nullopt;
}

absl::Status ClearUnixPath(const std::string& path) {
  if (path.empty() || path.size() > kPathBytesMax) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("choose a socket path of 1 to ", kPathBytesMax, " bytes; \"", path,
                              "\" has ", path.size()));
  }
  struct stat info = {};
  if (lstat(path.c_str(), &info) != 0) return absl::OkStatus();  // the bind says what is wrong
  if (!S_ISSOCK(info.st_mode)) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat(path, " is not a socket; choose another path or remove it"));
  }
  if (Listens(path)) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("another process listens on ", path, "; choose another path"));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("cannot remove the old socket ", path, ": ", strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::rpc
