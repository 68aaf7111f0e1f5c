// What the router's view means to an attention worker: the placement to dispatch by, its own
// readiness, the peers that /statusz shows.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "attention-worker/core/placement_view.h"
#include "attention-worker/engram_stores.h"
#include "attention-worker/expert_dispatcher.h"
#include "expertmesh/router/v1/router.pb.h"
#include "services/lifecycle/process.h"

namespace expertmesh::attention_worker {

PlacementView ToPlacementView(const router::v1::View& view);

/// Stores that may have the tables of a revision: started for it, or for no model in particular.
/// Beginning at another one in every worker (`first`).
std::vector<EngramStoreAddress> ToEngramStores(const router::v1::View& view,
                                               const std::string& revision, size_t first);

/// All methods on any thread.
class RouterLink {
 public:
  /// `stores` is null if this worker reads no Engram store; else it is not ready, and admits
  /// nothing, without one.
  RouterLink(std::string revision, ExpertDispatcher& experts, lifecycle::Process& process,
             EngramStores* stores, size_t first_store)
      : revision_(std::move(revision)),
        experts_(experts),
        process_(process),
        stores_(stores),
        first_store_(first_store) {}

  /// RouterClient's callbacks.
  void OnView(const router::v1::View& view);
  /// Without a router: everything is hosted in this process.
  void OnInproc(const PlacementView& view);
  void OnRouter(const std::string& address, bool up, const std::string& reason);
  /// transport::PeerListener.
  void OnPeer(const std::string& worker, bool up, const std::string& why);

  /// OK while every expert has a live replica and the memory a store; else kExpertsUnavailable,
  /// kEngramUnavailable or kNotReady. New requests ask.
  absl::Status Admit() const;

 private:
  void ShowMembersLocked(const router::v1::View& view);

  const std::string revision_;
  ExpertDispatcher& experts_;
  lifecycle::Process& process_;
  EngramStores* const stores_;
  const size_t first_store_;
  mutable std::mutex mutex_;
  std::string missing_;  // guarded by mutex_; slice text of what nobody hosts
  bool placed_ = false;  // guarded by mutex_; an epoch was seen
  std::map<std::string, std::string> addresses_;  // guarded by mutex_; expert workers by name
  /// Guarded by mutex_: transport of the expert workers that are connected.
  std::map<std::string, std::string> connected_;
  std::map<std::string, std::pair<std::string, std::string>> others_;  // name → role, address
};

}  // namespace expertmesh::attention_worker
