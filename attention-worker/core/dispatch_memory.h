// What dispatches of one attention worker remember from layer to layer. Pure, one owner.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "attention-worker/core/credits.h"
#include "services/base/clock.h"

namespace expertmesh::attention_worker {

struct DispatchMemory {
  Credits credits;
  uint64_t next_call_id = 1;
  /// Counts layers, so that equally loaded replicas take turns. Starts at another number in every
  /// worker, so that several do not march in step.
  uint64_t turn = 0;
  /// Pools that were found without a connected replica, since when. One wait serves all requests
  /// that meet the same loss, in whatever step. Forgotten when any worker connects.
  std::map<std::string, base::Instant> lost_since;

  void SetUp(const std::string& worker, bool up) {
    credits.SetUp(worker, up);
    if (up) lost_since.clear();
  }
};

}  // namespace expertmesh::attention_worker
