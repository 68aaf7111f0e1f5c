// Expert group → pool (docs/architecture.md §3.9, §7). A pool is a slice with its replicas. The map
// changes only with an epoch; replicas come and go without one. Pure, one owner.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "router/core/member.h"

namespace expertmesh::router {

struct PlacedPool {
  std::string name = {};                        // slice that its workers host, e.g. "0-15"
  std::vector<base::ExpertRange> experts = {};  // placed here: all of the slice or a part
  std::vector<std::string> replicas = {};       // serving now, by name; may be empty
};

struct PlacementState {
  EpochId epoch = {};
  std::string model = {};
  std::string revision = {};
  uint32_t expert_count = 0;
  uint32_t group_size = 1;
  std::vector<PlacedPool> pools = {};  // ordered by first expert
};

/// A worker that takes no part in the placement, and why.
struct LeftOut {
  std::string worker;
  std::string reason;
};

/// One (model, revision, profile) is placed at a time: that of the first registered attention
/// worker, without any that of the first expert worker. Once placed, it is kept while any worker
/// has it.
class Placement {
 public:
  /// Recomputes from who is alive; true if there is a new epoch. A group stays with its pool while
  /// that pool serves or nobody else hosts the group; else it goes to the serving pool with the
  /// lowest first expert, then name. The first placement of a model waits until every group is
  /// hosted.
  ///
  /// The first term is one above the highest that any member has seen. A member that brings an
  /// epoch of this term or a higher one that this router did not issue has it from another router's
  /// life: the placement is issued again in a term above that one.
  bool Update(const Members& members);

  /// Absent until every group of the model was hosted once. Replicas as of the last Update.
  const std::optional<PlacementState>& state() const { return state_; }
  /// Experts that no serving worker hosts, and groups that none hosts as a whole, as of the last
  /// Update; empty while no worker is known.
  const std::vector<base::ExpertRange>& missing() const { return missing_; }
  const std::vector<LeftOut>& left_out() const { return left_out_; }

 private:
  struct Slice {
    std::vector<base::ExpertRange> experts;
    std::vector<std::string> replicas;
  };
  using Slices = std::map<std::string, Slice>;  // by name

  const Member* ChooseModel(const Members& members) const;
  void SetModel(const Member& member);
  Slices ServingSlices(const Members& members);
  void FindMissing(const Slices& slices);
  std::vector<std::string> Assign(const Slices& slices) const;
  bool OutbidOthers(const Members& members);
  void Issue(std::vector<std::string> owners);
  base::ExpertRange Group(uint32_t group) const;
  uint32_t group_count() const;

  std::string model_, revision_, profile_;
  uint32_t expert_count_ = 0;  // 0: no model yet
  uint32_t group_size_ = 1;
  std::vector<std::string> owners_;  // slice name per group; kept when a slice has no worker left
  std::optional<PlacementState> state_;
  std::vector<base::ExpertRange> missing_;
  std::vector<LeftOut> left_out_;
  uint64_t foreign_term_ = 0;            // highest seen that is not ours
  uint64_t term_ = 0;                    // 0 until the first epoch
  uint64_t number_ = 0;                  // of the newest epoch of the term
  std::map<uint64_t, uint64_t> issued_;  // number → content hash, the newest of this term
};

}  // namespace expertmesh::router
