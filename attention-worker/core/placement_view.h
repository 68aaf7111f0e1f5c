// What the attention worker knows of the expert pools: which pool owns an expert, who its replicas
// are. Built from the router's view; a step uses one of these from its first layer to its last.
// Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "services/base/expert_node.h"

namespace expertmesh::attention_worker {

struct Replica {
  std::string name;
  uint64_t incarnation = 0;
  std::string address;
  std::string frames = {};  // where its dispatch frames come in
  friend bool operator==(const Replica&, const Replica&) = default;
};

struct Pool {
  std::string name;                        // the slice, e.g. "0-15"
  std::vector<base::ExpertRange> experts;  // placed here
  std::vector<Replica> replicas;           // alive, by the router's word
};

struct PlacementView {
  uint64_t term = 0;
  uint64_t number = 0;  // 0 = no placement yet
  uint64_t content_hash = 0;
  uint32_t expert_count = 0;
  std::vector<Pool> pools;

  static constexpr uint16_t kNoPool = UINT16_MAX;
  /// Pool index per expert id, kNoPool where the placement has a gap. [expert_count]
  std::vector<uint16_t> PoolOfExpert() const;
  bool complete() const { return number > 0; }
};

}  // namespace expertmesh::attention_worker
