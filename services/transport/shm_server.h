// The expert worker's end of shared memory: agrees to rings, serves the frames in them
// (docs/protocol.md §6).
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "expertmesh/expert/v1/expert.pb.h"
#include "services/transport/bell.h"
#include "services/transport/shm_socket.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

class ShmServer {
 public:
  static constexpr size_t kLinksMax = 64;
  /// `handler` gets every frame, on the server's thread; `drained` is called there when a batch of
  /// frames was handed over and no more stand in any ring: the moment to compute. Null: never.
  struct Options {
    FrameHandler handler;
    std::function<void()> drained;
    /// A link broke, with its reason; on the server's thread. `fault`: the peer broke a rule.
    std::function<void(bool fault, const std::string& why)> broken;
  };
  /// kUnsupported where the system has no name for this host; kInternal without a socket.
  static absl::StatusOr<std::unique_ptr<ShmServer>> Start(Options options);
  ~ShmServer();
  /// Breaks every link; replies that come later are dropped. Idempotent; not from a callback.
  void Stop();

  /// Any thread. kFrameVersion, kUnsupported (another host, or as many links as there may be).
  absl::StatusOr<expert::v1::AgreeRingResponse> Agree(const expert::v1::AgreeRingRequest& request);
  size_t links() const { return link_count_.load(); }

 private:
  class Link;
  struct Pending {
    UniqueFd socket;
    std::chrono::steady_clock::time_point until;
  };
  using Links = std::vector<std::shared_ptr<Link>>;

  ShmServer(Options options, std::string host, std::string name, UniqueFd listener);
  void Run();
  bool Drain();
  void WaitForSockets(bool sleep);
  void Accept();
  void Welcome(Pending& pending);
  absl::StatusOr<std::shared_ptr<Link>> TakeHello(Pending& pending, bool& waits);
  bool TakeTicket(const Ticket& ticket);
  void DropBroken();

  const Options options_;
  const std::string host_;
  const std::string name_;
  const UniqueFd listener_;
  const std::shared_ptr<BufferPool> buffers_;
  Bell stop_bell_;
  std::atomic<bool> stop_{false};
  std::atomic<size_t> link_count_{0};
  std::mutex mutex_;
  std::map<Ticket, std::chrono::steady_clock::time_point> tickets_;  // guarded by mutex_; → end

  // The server's thread only.
  Links links_;
  std::vector<Pending> pending_;
  base::Spinner spinner_;

  std::thread thread_;
};

}  // namespace expertmesh::transport
