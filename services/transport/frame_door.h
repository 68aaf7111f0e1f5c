// Where dispatch frames come in over gRPC: a server on an address of its own with one queue, which
// one thread polls. It takes in what has arrived and then serves it, so that no frame waits for a
// second thread to be woken, and frames of several callers are served together.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "services/transport/completion_poller.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

/// The stream of frames (docs/protocol.md §1). Other methods are not served here, nor are health
/// and reflection: those are at the worker's own address.
inline constexpr char kDispatchMethod[] = "/expertmesh.expert.v1.ExpertService/Dispatch";

class FrameDoor {
 public:
  struct Options {
    std::string listen;        // as rpc::Server's
    uint64_t incarnation = 0;  // ours; a caller that expects another one is refused
    /// Called on the door's thread for every frame that has arrived, then `drained`. The Reply may
    /// come from any thread, and outlive the stream (it is then dropped).
    FrameHandler handler;
    std::function<void()> drained = [] {};
  };
  static absl::StatusOr<std::unique_ptr<FrameDoor>> Start(Options options);
  ~FrameDoor();
  FrameDoor(const FrameDoor&) = delete;
  FrameDoor& operator=(const FrameDoor&) = delete;

  /// What peers dial: the port is the real one.
  const std::string& address() const { return address_; }
  /// Takes no more streams; those that are open get `grace` to end, then they are broken.
  /// Idempotent.
  void Stop(std::chrono::milliseconds grace);

 private:
  class Stream;
  struct Gate;
  explicit FrameDoor(Options options);
  void Accept();
  void Run();
  void ReadOn();

  const Options options_;
  const std::shared_ptr<BufferPool> buffers_;
  const std::shared_ptr<Gate> gate_;
  std::string address_;
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::shared_ptr<Stream>> served_;  // the thread's; their next frame is not asked for
  std::thread thread_;
};

}  // namespace expertmesh::transport
