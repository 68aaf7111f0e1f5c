#include "attention-worker/core/placement_view.h"

#include <algorithm>

namespace expertmesh::attention_worker {

std::vector<uint16_t> PlacementView::PoolOfExpert() const {
  std::vector<uint16_t> owner(expert_count, kNoPool);
  for (size_t p = 0; p < pools.size(); ++p) {
    for (const base::ExpertRange& r : pools[p].experts) {
      for (uint32_t e = r.begin; e < std::min(r.end, expert_count); ++e) {
        owner[e] = static_cast<uint16_t>(p);
      }
    }
  }
  return owner;
}

}  // namespace expertmesh::attention_worker
