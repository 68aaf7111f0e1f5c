// Strong identifiers: an ExpertId cannot be passed where a LayerId is wanted.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace expertmesh::base {

template <class Tag, class Rep>
struct StrongId {
  Rep value{};
  friend auto operator<=>(StrongId, StrongId) = default;
};

using ExpertId = StrongId<struct ExpertTag, uint16_t>;  // global id of a routed expert
using LayerId = StrongId<struct LayerTag, uint32_t>;    // 0-based
using LaneId = StrongId<struct LaneTag, uint64_t>;      // unique in an attention worker's life
using CallId = StrongId<struct CallTag, uint64_t>;      // unique in a dispatcher's life

}  // namespace expertmesh::base

template <class Tag, class Rep>
struct std::hash<expertmesh::base::StrongId<Tag, Rep>> {
  size_t operator()(expertmesh::base::StrongId<Tag, Rep> id) const noexcept {
    return std::hash<Rep>{}(id.value);
  }
};
