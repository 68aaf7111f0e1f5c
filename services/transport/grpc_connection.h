// A socket that speaks gRPC: reads and writes what a GrpcSession takes and gives.
#pragma once

#include <chrono>
#include <span>

#include "absl/status/statusor.h"
#include "services/rpc/channel.h"
#include "services/transport/grpc_session.h"
#include "services/transport/unique_fd.h"

namespace expertmesh::transport::internal {

/// Not thread-safe. Never blocks. kPeerLost ends the connection.
class GrpcConnection {
 public:
  /// How often Tick is to be called.
  static constexpr std::chrono::milliseconds kTick{rpc::kKeepaliveTimeoutMs};

  /// How often Read is called in a turn, so that no peer keeps the others waiting.
  static constexpr int kReadsPerTurn = 16;

  GrpcConnection(UniqueFd socket, GrpcSession::Side side, GrpcSession::Listener& listener)
      : socket_(std::move(socket)), session_(side, listener) {}

  GrpcSession& session() { return session_; }
  const UniqueFd& socket() const { return socket_; }

  /// Takes in what has come, as much as fits into `scratch`. True if there may be more.
  absl::StatusOr<bool> Read(std::span<std::byte> scratch);
  /// Writes what the session has for the peer, as far as the socket takes it.
  absl::Status Flush();
  /// Something is left that the socket did not take.
  bool stuck() const { return stuck_; }
  /// Asks a silent peer for a sign of life (flush it), and misses it a tick later.
  absl::Status Tick();

 private:
  bool HasUnread() const;

  UniqueFd socket_;
  GrpcSession session_;
  bool stuck_ = false;
  bool heard_ = true;   // since the last tick
  bool asked_ = false;  // at the last tick
};

}  // namespace expertmesh::transport::internal
