#include "services/transport/shm_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::transport {
namespace {

using base::Error;
using base::Reason;

constexpr char kHelloMagic[8] = {'E', 'M', 'R', 'I', 'N', 'G', '0', '1'};
constexpr char kWelcome[8] = {'E', 'M', 'R', 'I', 'N', 'G', 'O', 'K'};
constexpr int kBacklog = 64;

// Little-endian, as everything on our wires.
struct HelloBytes {
  char magic[8];
  Ticket ticket;
  std::array<uint32_t, 4> sizes;  // requests and answers of decode, then of prefill
};
static_assert(sizeof(HelloBytes) == 40);

absl::StatusOr<std::pair<sockaddr_un, socklen_t>> AbstractAddress(const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (name.empty() || name.size() > sizeof(address.sun_path) - 1) {
    return Error(Reason::kFrameMalformed, "no name of an abstract socket");
  }
  std::memcpy(address.sun_path + 1, name.data(), name.size());  // behind a NUL
  const size_t length = offsetof(sockaddr_un, sun_path) + 1 + name.size();
  return std::pair(address, static_cast<socklen_t>(length));
}

UniqueFd NewSocket() {
  return UniqueFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

absl::Status Gone(const char* what) {
  return Error(Reason::kPeerLost, absl::StrCat("ring socket: ", what));
}

// Room for more descriptors than we want, so that a peer cannot leave any behind unseen.
struct ControlRoom {
  alignas(cmsghdr) char bytes[CMSG_SPACE(4 * sizeof(int))];
};

// The descriptor if there is exactly one; closes whatever came.
UniqueFd TakeDescriptor(msghdr& message) {
  UniqueFd taken;
  size_t count = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t bytes = c->cmsg_len - CMSG_LEN(0);
    for (size_t i = 0; i + sizeof(int) <= bytes; i += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i, sizeof(int));
      taken = UniqueFd(fd);
      ++count;
    }
  }
  const bool cut = (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;
  return count == 1 && !cut ? std::move(taken) : UniqueFd();
}

}  // namespace

absl::StatusOr<UniqueFd> ListenAbstract(const std::string& name) {
  EM_ASSIGN_OR_RETURN(const auto address, AbstractAddress(name));
  UniqueFd fd = NewSocket();
  if (!fd.valid() ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.first), address.second) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return Error(Reason::kInternal, absl::StrCat("ring socket: ", strerror(errno)));
  }
  return fd;
}

UniqueFd AcceptOne(const UniqueFd& listener) {
  return UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

absl::StatusOr<UniqueFd> ConnectAbstract(const std::string& name) {
  EM_ASSIGN_OR_RETURN(const auto address, AbstractAddress(name));
  UniqueFd fd = NewSocket();
  if (!fd.valid() ||
      connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.first), address.second) != 0) {
    return Gone(strerror(errno));
  }
  return fd;
}

absl::Status SendHello(const UniqueFd& socket, const Ticket& ticket, const ShmSegment& segment) {
  HelloBytes hello = {};
  std::memcpy(hello.magic, kHelloMagic, sizeof(hello.magic));
  hello.ticket = ticket;
  const SegmentSizes& sizes = segment.sizes();
  hello.sizes = {sizes.requests[0], sizes.answers[0], sizes.requests[1], sizes.answers[1]};
  iovec part = {&hello, sizeof(hello)};
  ControlRoom room = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room.bytes;
  message.msg_controllen = CMSG_SPACE(sizeof(int));
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = segment.fd();
  std::memcpy(CMSG_DATA(c), &fd, sizeof(int));
  if (sendmsg(socket.get(), &message, MSG_NOSIGNAL) != sizeof(hello)) return Gone(strerror(errno));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<RingHello>> ReceiveHello(const UniqueFd& socket) {
  HelloBytes bytes = {};
  iovec part = {&bytes, sizeof(bytes)};
  ControlRoom room = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room.bytes;
  message.msg_controllen = sizeof(room.bytes);
  const ssize_t length = recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  if (length <= 0) return Gone("closed before the hello");
  RingHello hello;
  hello.memory = TakeDescriptor(message);
  if (length != sizeof(bytes) || !hello.memory.valid() ||
      std::memcmp(bytes.magic, kHelloMagic, sizeof(bytes.magic)) != 0) {
    return Error(Reason::kFrameMalformed, "ring socket: not a hello");
  }
  hello.ticket = bytes.ticket;
  hello.sizes.requests = {bytes.sizes[0], bytes.sizes[2]};
  hello.sizes.answers = {bytes.sizes[1], bytes.sizes[3]};
  return hello;
}

absl::Status SendWelcome(const UniqueFd& socket) {
  if (send(socket.get(), kWelcome, sizeof(kWelcome), MSG_NOSIGNAL) != sizeof(kWelcome)) {
    return Gone(strerror(errno));
  }
  return absl::OkStatus();
}

absl::Status AwaitWelcome(const UniqueFd& socket, int timeout_ms) {
  pollfd entry = {socket.get(), POLLIN, 0};
  char bytes[sizeof(kWelcome)] = {};
  if (poll(&entry, 1, timeout_ms) <= 0 ||
      recv(socket.get(), bytes, sizeof(bytes), 0) != sizeof(bytes) ||
      std::memcmp(bytes, kWelcome, sizeof(bytes)) != 0) {
    return Gone("the worker did not take the ring");
  }
  return absl::OkStatus();
}

void RingDoor(const UniqueFd& socket) {
  const char byte = 1;
  (void)!send(socket.get(), &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool AnswerDoor(const UniqueFd& socket) {
  char bytes[2] = {};
  for (;;) {
    const ssize_t length = recv(socket.get(), bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC);
    if (length == 1) continue;
    return length < 0 && (errno == EAGAIN || errno == EINTR);
  }
}

}  // namespace expertmesh::transport
