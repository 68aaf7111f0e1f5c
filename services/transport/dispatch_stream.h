// One gRPC stream of dispatch frames to one peer, dialled again until stopped.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "services/transport/grpc_connection.h"
#include "services/transport/reactor.h"
#include "services/transport/stream_socket.h"
#include "services/transport/transport.h"

namespace expertmesh::transport::internal {

/// Thread-safe. Its events are handled by the thread that polls the reactor.
class DispatchStream final : public std::enable_shared_from_this<DispatchStream>,
                             public Reactor::Handler,
                             private GrpcSession::Listener {
 public:
  using UpListener = std::function<void(bool up, const std::string& why)>;

  /// `incarnation` is ours. `reactor` outlives the stream.
  DispatchStream(Peer peer, uint64_t incarnation, std::shared_ptr<BufferPool> buffers,
                 Reactor& reactor, UpListener listener);

  void Start();
  /// Completes everything in flight and waits until nothing of the stream runs any more.
  void Stop(const std::string& why);
  void Submit(DispatchFrame frame, Completion done);
  /// False if no such call is in flight here.
  bool Cancel(uint64_t call_id);

 private:
  struct Call {
    size_t partials;
    size_t hidden;
    Completion done;
  };
  struct Names;  // asked for by a thread of its own
  struct Turn;   // a thread handles events of the stream

  void OnReady(std::span<std::byte> scratch) override;
  void OnFields(int32_t stream, const Fields& fields) override;
  void OnMessage(int32_t stream, size_t bytes) override;
  void OnBytes(int32_t stream, std::span<const std::byte> bytes) override;
  void OnHalfClose(int32_t /*stream*/) override {}
  void OnClosed(int32_t stream, const absl::Status& status) override;

  void Later(std::chrono::milliseconds after, void (DispatchStream::*work)(uint64_t attempt));
  void Dial(uint64_t attempt);
  void LookForNames(uint64_t attempt);
  void GiveUpConnecting(uint64_t attempt);
  void Tick(uint64_t attempt);
  absl::Status DialLocked();
  absl::Status ConnectLocked();
  absl::Status ReadLocked(std::span<std::byte> scratch);
  absl::Status FlushLocked();
  void EndSoonLocked();
  void DisconnectLocked();
  void Deliver(std::vector<absl::StatusOr<CombineFrame>> answers);
  void Fail(const absl::Status& why);
  std::vector<Completion> TakeCallsLocked();

  const Peer peer_;
  const uint64_t incarnation_;
  const std::shared_ptr<BufferPool> buffers_;
  Reactor& reactor_;
  const UpListener listener_;

  std::mutex mutex_;  // guards all below
  std::condition_variable turn_over_;
  std::thread::id turn_of_;  // who handles events of the stream; nobody: no thread
  uint64_t attempt_ = 0;     // to connect; what was planned for an earlier one is void
  std::shared_ptr<Names> names_;
  std::vector<SocketAddress> addresses_;
  size_t next_address_ = 0;
  Reactor::Clock::time_point names_until_;  // addresses_ of a name hold so long
  std::chrono::milliseconds redial_after_{0};
  std::unique_ptr<GrpcConnection> connection_;  // null between two attempts
  int32_t stream_ = 0;                          // 0: the socket has not connected yet
  bool stuck_ = false;                          // the reactor waits until it can write
  bool up_ = false;
  bool stopped_ = false;
  std::string failure_;  // of the last attempt that ended
  std::unordered_map<uint64_t, Call> calls_;
  // Of the turn: what came in.
  std::optional<FrameReader<CombineFrame>> reader_;
  std::vector<absl::StatusOr<CombineFrame>> arrived_;
  absl::Status closed_;
};

}  // namespace expertmesh::transport::internal
