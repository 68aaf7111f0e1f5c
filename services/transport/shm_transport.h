// The transport inside one host: the gRPC streams of GrpcTransport, and beside them, where a peer
// on the same host agrees, rings in shared memory (docs/protocol.md §6). What does not fit into a
// ring, and everything while there is none, takes the streams.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "services/transport/grpc_transport.h"
#include "services/transport/shm_link.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

class ShmTransport final : public Transport {
 public:
  struct Options {
    uint64_t incarnation = 0;  // ours, sent in the handshake
    /// A peer without a ring counts as down (`--transport shm`); else it is reached over gRPC.
    bool required = false;
    /// A thread of the transport takes in answers. Otherwise the owner has a thread in Wait
    /// whenever calls are out, and saves the hand-off.
    bool own_thread = false;
    SegmentSizes sizes;
  };
  ShmTransport(Options options, PeerListener listener);
  ~ShmTransport() override;

  Capabilities capabilities() const override;
  void AddPeer(const Peer& peer) override;
  void RemovePeer(const std::string& name) override;
  void Submit(const std::string& peer, Purpose purpose, DispatchFrame frame,
              Completion done) override;
  void Cancel(uint64_t call_id) override;
  void Wait(Bell& bell, std::optional<base::Micros> wait) override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Known {
    Peer peer;
    bool connected = false;  // over gRPC
    bool refused = false;    // until it connects again
    std::shared_ptr<ShmLink> link;
    std::string why = "no ring yet";
    Clock::time_point retry_at{};
    Clock::duration backoff{};
  };
  struct Told {
    bool up = false;
    std::string how;
  };

  void OnConnection(const std::string& name, bool up, const std::string& why);
  void Tell(const std::string& name, const std::string& why_down);
  void RunAgent();
  Known* NextToAgreeLocked(Clock::time_point& wake);
  void Settle(const Peer& peer, absl::StatusOr<std::shared_ptr<ShmLink>> link);
  absl::StatusOr<std::shared_ptr<ShmLink>> Agree(const Peer& peer);
  void RefreshLinks();
  void DropBroken();
  bool Receive();
  void Sleep(Bell& bell, std::optional<base::Micros> wait);

  const Options options_;
  const PeerListener listener_;
  const std::shared_ptr<BufferPool> buffers_;
  Bell changed_;   // rung when the links change, for the thread in Wait
  Bell own_bell_;  // of the own thread

  std::mutex mutex_;
  std::condition_variable agent_wake_;
  std::map<std::string, Known> peers_;  // guarded by mutex_
  bool stop_ = false;                   // guarded by mutex_
  std::mutex tell_mutex_;               // held while the listener runs; taken before mutex_
  std::map<std::string, Told> told_;    // guarded by tell_mutex_

  // The thread in Wait only.
  std::vector<std::pair<std::string, std::shared_ptr<ShmLink>>> links_;
  base::Spinner spinner_;

  std::unique_ptr<GrpcTransport> streams_;
  std::thread agent_;
  std::thread own_thread_;
};

}  // namespace expertmesh::transport
