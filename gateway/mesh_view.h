// What the gateway knows of the mesh: the router's view, its own connections to the attention
// workers, and what of that /statusz and readiness show.
#pragma once

#include <grpcpp/channel.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "expertmesh/router/v1/router.pb.h"
#include "gateway/core/worker_picker.h"
#include "gateway/worker_calls.h"
#include "services/lifecycle/process.h"

namespace expertmesh::gateway {

/// Thread-safe. `process` outlives it.
class MeshView {
 public:
  MeshView(std::string model, lifecycle::Process& process)
      : model_(std::move(model)), process_(process) {}

  /// RouterClient's callbacks. A router that starts anew first sends views without a placement;
  /// they do not replace what an earlier one said. The calls of a worker that leaves the view of a
  /// router that knew it end at once with kPeerLost; one that a new router does not know yet may
  /// only be late.
  void OnView(const router::v1::View& view);
  void OnRouter(const std::string& address, bool up, const std::string& reason);
  /// Looks at the connections, so that a dead worker is noticed without a router. Call it a few
  /// times a second.
  void CheckConnections();

  /// A worker for one request.
  struct Target {
    std::string worker;
    std::string revision;
    std::string profile;
    std::shared_ptr<grpc::Channel> channel;
    std::shared_ptr<WorkerCalls> calls;
  };
  /// The least loaded one. kDraining, kNotReady until every expert group and an attention worker
  /// were seen once, then kExpertsUnavailable or kNoAttentionWorker while some are missing.
  absl::StatusOr<Target> Pick();
  /// Revision and profile of the first attention worker of the model; empty fields without one.
  Target Any() const;

 private:
  using PeerKey = std::pair<std::string, std::string>;  // role, name
  struct Peer {
    std::string address;
    bool member = false;   // in the view
    uint64_t left_at = 0;  // order of leaving
  };

  struct Link {
    std::shared_ptr<grpc::Channel> channel;
    bool down = false;  // failed, and not connected again since
  };
  using WorkerKey = std::pair<std::string, uint64_t>;  // name, incarnation
  struct Running {
    std::shared_ptr<WorkerCalls> calls;
    uint64_t router = 0;  // incarnation of the last router that had it in its view
  };
  using Lost = std::vector<std::shared_ptr<WorkerCalls>>;

  void TakeWorkersLocked(const router::v1::View& view);
  Lost TakeRunningLocked(const router::v1::View& view);
  void TakePeersLocked(const router::v1::View& view);
  void ForgetPeersLocked();
  void CheckLinksLocked();
  void ShowLinksLocked();
  void UpdateReadinessLocked();

  const std::string model_;
  lifecycle::Process& process_;
  mutable std::mutex mutex_;
  MeshSnapshot snapshot_;                 // guarded by mutex_
  bool placed_ = false;                   // guarded by mutex_: a placement was seen
  bool worker_seen_ = false;              // guarded by mutex_: a ready worker of the model was seen
  std::map<std::string, Link> links_;     // guarded by mutex_; attention workers by address
  std::map<WorkerKey, Running> running_;  // guarded by mutex_; attention workers by start
  std::map<PeerKey, Peer> peers_;         // guarded by mutex_
  uint64_t departures_ = 0;               // guarded by mutex_
};

}  // namespace expertmesh::gateway
