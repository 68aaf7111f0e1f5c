#include "services/transport/stream_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/listen_address.h"
#include "services/rpc/unix_socket.h"

namespace expertmesh::transport::internal {
namespace {

using base::Error;
using base::Reason;

SocketAddress OfPath(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), std::min(path.size(), sizeof(name.sun_path) - 1));
  SocketAddress address;
  std::memcpy(&address.storage, &name, sizeof(name));
  address.bytes = sizeof(name);
  return address;
}

// "host:port" with the host of "[host]:port" bare.
std::pair<std::string, std::string> Split(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return {address, ""};
  std::string_view host = std::string_view(address).substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return {std::string(host), address.substr(colon + 1)};
}

absl::StatusOr<std::vector<SocketAddress>> Look(const std::string& address, int flags) {
  if (const auto path = rpc::UnixPath(address)) return std::vector{OfPath(*path)};
  const auto [host, port] = Split(address);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> keep(found, &freeaddrinfo);
  if (error != 0) {
    return Error(error == EAI_NONAME && (flags & AI_NUMERICHOST) != 0 ? Reason::kInvalidArgument
                                                                      : Reason::kPeerLost,
                 absl::StrCat("cannot resolve ", address, ": ", gai_strerror(error)));
  }
  std::vector<SocketAddress> all;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    SocketAddress& next = all.emplace_back();
    std::memcpy(&next.storage, one->ai_addr, one->ai_addrlen);
    next.bytes = one->ai_addrlen;
  }
  return all;
}

// Small frames leave at once, and a host that is gone is noticed while bytes are on the way.
void SetTcpOptions(int fd) {
  const int on = 1;
  const int timeout_ms = rpc::kKeepaliveTimeoutMs;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

uint16_t PortOf(int fd) {
  SocketAddress bound;
  bound.bytes = sizeof(bound.storage);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound.storage), &bound.bytes);
  return ntohs(bound.storage.ss_family == AF_INET6
                   ? reinterpret_cast<sockaddr_in6&>(bound.storage).sin6_port
                   : reinterpret_cast<sockaddr_in&>(bound.storage).sin_port);
}

// Not valid, with errno, if that cannot be.
UniqueFd ListenOne(const SocketAddress& where) {
  UniqueFd fd(socket(where.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fd;
  const int on = 1;
  const int off = 0;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (where.storage.ss_family == AF_INET6) {
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  }
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&where.storage), where.bytes) == 0 &&
      listen(fd.get(), SOMAXCONN) == 0) {
    return fd;
  }
  const int error = errno;  // closing may change it
  fd = UniqueFd();
  errno = error;
  return fd;
}

}  // namespace

absl::StatusOr<std::vector<SocketAddress>> Resolve(const std::string& address, bool names) {
  return Look(address, names ? 0 : AI_NUMERICHOST);
}

absl::StatusOr<UniqueFd> ListenAt(const std::string& address, std::string& bound) {
  EM_RETURN_IF_ERROR(rpc::PrepareAddress(address));
  const auto refuse = [&](const std::string& why) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("cannot listen on ", address, ": ", why,
                              "; is the address taken, here or by another process, or no "
                              "address of this host, or the folder missing?"));
  };
  const auto [host, port] = Split(address);
  std::vector<SocketAddress> candidates;
  if (host == "0.0.0.0") {  // pods may have addresses of either family, or of one
    const auto both = Look("[::]:" + port, AI_PASSIVE | AI_NUMERICHOST);
    if (both.ok()) candidates = *both;
  }
  const auto named = Look(address, AI_PASSIVE);
  if (!named.ok()) return refuse(std::string(named.status().message()));
  candidates.insert(candidates.end(), named->begin(), named->end());
  int error = 0;
  for (const SocketAddress& where : candidates) {
    UniqueFd fd = ListenOne(where);
    error = errno;
    if (!fd.valid()) {
      if (error == EADDRINUSE) break;  // by another process, in one family at least
      continue;
    }
    bound = where.storage.ss_family == AF_UNIX
                ? address
                : absl::StrCat(address.substr(0, address.rfind(':')), ":", PortOf(fd.get()));
    return fd;
  }
  return refuse(strerror(error));
}

UniqueFd Accept(const UniqueFd& listener) {
  UniqueFd fd(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd.valid()) SetTcpOptions(fd.get());  // refused by a Unix socket, which needs none
  return fd;
}

absl::StatusOr<UniqueFd> Connect(const SocketAddress& address) {
  UniqueFd fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Error(Reason::kPeerLost, absl::StrCat("socket: ", strerror(errno)));
  SetTcpOptions(fd.get());
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.bytes) != 0 &&
      errno != EINPROGRESS) {
    return Error(Reason::kPeerLost, absl::StrCat("cannot connect: ", strerror(errno)));
  }
  return fd;
}

absl::Status ConnectionError(const UniqueFd& socket) {
  int error = 0;
  socklen_t bytes = sizeof(error);
  getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
  if (error == 0) return absl::OkStatus();
  return Error(Reason::kPeerLost, absl::StrCat("cannot connect: ", strerror(error)));
}

}  // namespace expertmesh::transport::internal
