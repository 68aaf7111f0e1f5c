// Joins the rows of several calls into one batch, so that every expert is read once for all of
// them, and takes the sums apart again. Rows of expired lanes are left out before any arithmetic.
// Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "services/base/expert_batch.h"

namespace expertmesh::expert_worker {

/// One call to be merged. `keep[row]` 0 drops the row; empty keeps all.
struct MergePart {
  const base::ExpertBatch* batch = nullptr;
  std::vector<uint8_t> keep;
};

/// Owns copies of what it joined. All parts have the same layer, row type and hidden size.
class MergedBatch {
 public:
  MergedBatch(std::span<const MergePart> parts, size_t hidden);

  const base::ExpertBatch& batch() const { return batch_; }
  /// Copies the sums of part `part` out of `sums` [batch().partials, hidden] into `out` [its
  /// partials, hidden]; partials of dropped rows become 0.
  void Split(size_t part, std::span<const float> sums, std::span<float> out) const;

 private:
  static constexpr uint32_t kDropped = UINT32_MAX;
  void Append(const MergePart& part);

  size_t hidden_;
  size_t row_bytes_;
  base::ExpertBatch batch_;
  std::vector<std::byte> storage_;  // rows, with room to align
  std::byte* rows_ = nullptr;       // 64-aligned inside storage_
  size_t row_count_ = 0;
  std::vector<float> row_scales_;  // of int8 rows
  std::vector<uint32_t> row_offsets_{0};
  std::vector<uint16_t> expert_ids_;
  std::vector<float> expert_weights_;
  std::vector<base::PartialNode> partials_;
  std::vector<std::vector<uint32_t>> merged_index_;  // [part][its partial] → merged partial
};

}  // namespace expertmesh::expert_worker
