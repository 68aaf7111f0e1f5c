// How blocks write and read the entries of a lane's cache.
#pragma once

#include <cstdint>
#include <cstring>

#include "model/kernels/bf16.h"
#include "model/lane_state.h"
#include "model/runtime.h"

namespace expertmesh::model {

/// Streams of LaneState, in the order the model declares them.
inline constexpr size_t kLatentStream = 0;    // every layer
inline constexpr size_t kIndexKeyStream = 1;  // layers with an indexer

/// Place of a row in its lane.
inline size_t IndexOf(const StepRow& row) { return row.position - row.lane->first_position(); }

/// Stores x [size], rounded to the profile's KV type.
inline void StoreEntry(const Profile& profile, const float* x, size_t size, std::byte* entry) {
  if (profile.kv == Dtype::kF32) {
    std::memcpy(entry, x, size * sizeof(float));
    return;
  }
  auto* halves = reinterpret_cast<uint16_t*>(entry);
  for (size_t i = 0; i < size; ++i) halves[i] = NarrowBf16(x[i]);
}

}  // namespace expertmesh::model
