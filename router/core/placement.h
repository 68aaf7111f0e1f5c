// Expert group → pool (docs/architecture.md §3.9, §7). A pool is a slice with its replicas. The map changes
// only with an epoch; replicas come and go without one. Pure, one owner.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "router/core/membership.h"

namespace expertmesh::router {

struct PlacedPool {
  std::string name;                        // slice the workers host, e.g. "0-15"
  std::vector<base::ExpertRange> experts;  // placed here, a part of it
  std::vector<std::string> replicas;       // live and ready, by name
};

struct PlacementState {
  EpochId epoch;
  std::string model;
  std::string revision;
  uint32_t expert_count = 0;
  uint32_t group_size = 1;
  std::vector<PlacedPool> pools;  // ordered by first expert
};

class Placement {
 public:
  /// Recomputes from who is alive. Groups stay with their pool while it has a live member or nobody else
  /// hosts them; otherwise they go to the first live pool that does. The first placement comes when every
  /// group is hosted by a ready worker. True if the epoch changed.
  bool Update(const std::map<Membership::Key, Member>& members);

  /// Absent until every group was hosted once. Replicas are those of the last Update.
  const std::optional<PlacementState>& state() const { return state_; }
  /// Experts that no live, ready worker of the model hosts now. Empty while no worker is known.
  const std::vector<base::ExpertRange>& missing() const { return missing_; }
  /// Why some workers are left out, e.g. of another revision; empty if none.
  const std::string& mismatch() const { return mismatch_; }

 private:
  struct Candidate {
    std::vector<base::ExpertRange> experts;
    std::vector<std::string> replicas;
  };
  bool Choose(const std::map<Membership::Key, Member>& members);
  std::map<std::string, Candidate> Candidates(const std::map<Membership::Key, Member>& members);
  void Publish(const std::vector<std::string>& owner_of_group);
  void FillReplicas(const std::map<std::string, Candidate>& candidates);

  std::optional<PlacementState> state_;
  std::vector<std::string> owner_of_group_;  // pool name per group; kept across the loss of a pool
  std::vector<base::ExpertRange> missing_;
  std::string mismatch_;
  // The model being placed: of the first worker seen.
  std::string model_, revision_, profile_;
  uint32_t expert_count_ = 0;
  uint64_t term_ = 0;
  uint64_t number_ = 0;
};

}  // namespace expertmesh::router
