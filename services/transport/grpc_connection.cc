#include "services/transport/grpc_connection.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::transport::internal {
namespace {

absl::Status Lost(const char* what) {
  return base::Error(base::Reason::kPeerLost, absl::StrCat(what, ": ", strerror(errno)));
}

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK; }

}  // namespace

absl::StatusOr<bool> GrpcConnection::Read(std::span<std::byte> scratch) {
  ssize_t count = 0;
  do {
    count = recv(socket_.get(), scratch.data(), scratch.size(), MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  if (count == 0) return base::Error(base::Reason::kPeerLost, "closed by the peer");
  if (count < 0) {
    if (WouldBlock()) return false;
    return Lost("recv");
  }
  heard_ = true;
  EM_RETURN_IF_ERROR(session_.Receive(scratch.first(static_cast<size_t>(count))));
  return static_cast<size_t>(count) == scratch.size();
}

absl::Status GrpcConnection::Flush() {
  for (;;) {
    EM_ASSIGN_OR_RETURN(const std::span<const iovec> out, session_.Out());
    stuck_ = !out.empty();
    if (!stuck_) {
      if (!session_.over()) return absl::OkStatus();
      return base::Error(base::Reason::kPeerLost, "the connection is over");
    }
    msghdr message = {};
    message.msg_iov = const_cast<iovec*>(out.data());
    message.msg_iovlen = out.size();
    const ssize_t count = sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) continue;
      return WouldBlock() ? absl::OkStatus() : Lost("sendmsg");
    }
    session_.Sent(static_cast<size_t>(count));
  }
}

bool GrpcConnection::HasUnread() const {
  std::byte next;
  return recv(socket_.get(), &next, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

absl::Status GrpcConnection::Tick() {
  // After a pause of this process the answer is there, and has not been read.
  if (std::exchange(heard_, false) || (asked_ && HasUnread())) {
    asked_ = false;
    return absl::OkStatus();
  }
  if (asked_) return base::Error(base::Reason::kPeerLost, "no sign of life");
  session_.Ping();
  asked_ = true;
  return absl::OkStatus();
}

}  // namespace expertmesh::transport::internal
