// One layer's rows for a slice of experts, as spans: what a dispatch frame holds on the wire and
// what model/expert_slice.h computes. Shared so that neither knows the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "services/base/expert_node.h"

namespace expertmesh::base {

/// kInt8: weights and rows inside the profile int8. kInt4 and kFp4: weights there, two in a byte.
/// kFp8: weights inside the profile bf16. kInt8Row: rows on the wire only, with one f32 scale per
/// row (base/int8_row.h).
enum class Dtype { kF32, kBf16, kInt8, kInt8Row, kInt4, kFp4, kFp8 };
/// Of one element that has its own bytes; scales come on top.
inline constexpr size_t DtypeBytes(Dtype dtype) {
  return dtype == Dtype::kF32 ? 4 : dtype == Dtype::kBf16 ? 2 : 1;
}

/// The same layout as the dispatch payload (docs/protocol.md §1). Owns nothing.
struct ExpertBatch {
  uint32_t layer = 0;
  size_t row_count = 0;
  Dtype row_dtype = Dtype::kF32;
  const std::byte* rows = nullptr;         // [row_count, hidden] of row_dtype, 64-aligned
  std::span<const uint32_t> row_offsets;   // [row_count + 1]
  std::span<const uint16_t> expert_ids;    // [entries], ascending inside a row
  std::span<const float> expert_weights;   // [entries]
  std::span<const PartialNode> partials;   // ordered by (row, first_expert)
  std::span<const float> row_scales = {};  // [row_count] with kInt8Row, else empty
};

}  // namespace expertmesh::base
