#include "services/transport/grpc_connection.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::transport::internal {
namespace {

constexpr int kReadsPerTurn = 16;  // so that no peer keeps the others waiting

absl::Status Lost(const char* what) {
  return base::Error(base::Reason::kPeerLost, absl::StrCat(what, ": ", strerror(errno)));
}

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK; }

}  // namespace

absl::Status GrpcConnection::Read(std::span<std::byte> scratch) {
  for (int reads = 0; reads < kReadsPerTurn; ++reads) {
    const ssize_t count = recv(socket_.get(), scratch.data(), scratch.size(), MSG_DONTWAIT);
    if (count == 0) return base::Error(base::Reason::kPeerLost, "closed by the peer");
    if (count < 0) {
      if (errno == EINTR) continue;
      return WouldBlock() ? absl::OkStatus() : Lost("recv");
    }
    heard_ = true;
    EM_RETURN_IF_ERROR(session_.Receive(scratch.first(static_cast<size_t>(count))));
    if (static_cast<size_t>(count) < scratch.size()) break;  // that was all
  }
  return absl::OkStatus();
}

absl::Status GrpcConnection::Flush() {
  for (;;) {
    const std::span<const iovec> out = session_.Out();
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

absl::Status GrpcConnection::Tick() {
  if (!std::exchange(heard_, false)) {
    if (asked_) return base::Error(base::Reason::kPeerLost, "no sign of life");
    session_.Ping();
    asked_ = true;
    return Flush();
  }
  asked_ = false;
  return absl::OkStatus();
}

}  // namespace expertmesh::transport::internal
