// Where dispatch frames come in over gRPC: a server on an address of its own, with one thread that
// takes in what has arrived and then serves it, so that no frame waits for a second thread to be
// woken, and frames of several callers are served together.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "services/transport/reactor.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

/// The stream of frames (docs/protocol.md §1). Other methods are not served here, nor are health
/// and reflection: those are at the worker's own address.
inline constexpr char kDispatchMethod[] = "/expertmesh.expert.v1.ExpertService/Dispatch";

namespace internal {
/// Keys of the handshake, in the metadata with which a Dispatch stream begins.
inline constexpr char kIncarnationKey[] = "x-expertmesh-incarnation";      // of the sender
inline constexpr char kExpectedKey[] = "x-expertmesh-expect-incarnation";  // of the receiver
}  // namespace internal

class FrameDoor {
 public:
  struct Options {
    std::string listen;        // as rpc::Server's
    uint64_t incarnation = 0;  // ours; a caller that expects another one is refused
    /// Called on the door's thread for every frame that has arrived, then `drained`. The Reply may
    /// come from any thread, and outlive the stream (it is then dropped).
    FrameHandler handler;
    std::function<void()> drained = [] {};
    /// On the door's thread: a caller did what breaks its stream or its connection.
    std::function<void(const std::string& why)> broken = [](const std::string&) {};
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
  class Acceptor;
  class Connection;
  explicit FrameDoor(Options options);
  void AcceptAll();
  void Forget(int fd);
  void Run();

  const Options options_;
  const std::shared_ptr<BufferPool> buffers_;
  internal::Reactor reactor_;
  std::string address_;
  UniqueFd listener_;
  std::mutex mutex_;
  std::condition_variable forgotten_;
  std::map<int, std::shared_ptr<Connection>> connections_;  // guarded by mutex_; by descriptor
  bool accepts_ = true;                                     // guarded by mutex_
  bool stop_ = false;                                       // guarded by mutex_
  std::thread thread_;
};

}  // namespace expertmesh::transport
