// The transport of a single process: one thread serves the calls of every peer, all of them the
// same handler. Frames are built and checked as on the wire, so the bits are those of the mesh.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "services/transport/transport.h"

namespace expertmesh::transport {

class InprocTransport final : public Transport {
 public:
  /// `handler` runs on the transport's thread; `listener` may be empty.
  InprocTransport(FrameHandler handler, PeerListener listener);
  ~InprocTransport() override;

  Capabilities capabilities() const override;
  void AddPeer(const Peer& peer) override;
  void RemovePeer(const std::string& name) override;
  void Submit(const std::string& peer, Purpose purpose, DispatchFrame frame,
              Completion done) override;
  void Cancel(uint64_t call_id) override;

 private:
  // Shared with the replies that are still out, which may come after the transport is gone.
  struct Calls;
  struct Queued {
    uint64_t call_id = 0;
    DispatchFrame frame;
  };
  void Run();

  const FrameHandler handler_;
  const PeerListener listener_;
  const std::shared_ptr<Calls> calls_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::set<std::string> peers_;  // guarded by mutex_
  std::deque<Queued> queue_;     // guarded by mutex_
  bool stop_ = false;            // guarded by mutex_
  std::thread thread_;
};

}  // namespace expertmesh::transport
