#include "expert-worker/core/merge.h"

#include <algorithm>
#include <cstring>

namespace expertmesh::expert_worker {
namespace {
constexpr size_t kAlignment = 64;
}

MergedBatch::MergedBatch(std::span<const MergePart> parts, size_t hidden) : hidden_(hidden) {
  batch_.layer = parts.front().batch->layer;
  batch_.row_dtype = parts.front().batch->row_dtype;
  row_bytes_ = hidden * base::DtypeBytes(batch_.row_dtype);
  size_t rows = 0;
  for (const MergePart& part : parts) rows += part.batch->row_count;
  storage_.resize(rows * row_bytes_ + kAlignment);
  const auto address = reinterpret_cast<uintptr_t>(storage_.data());
  rows_ = storage_.data() + (kAlignment - address % kAlignment) % kAlignment;
  for (const MergePart& part : parts) Append(part);
  batch_.row_count = row_count_;
  batch_.rows = rows_;
  batch_.row_scales = row_scales_;
  batch_.row_offsets = row_offsets_;
  batch_.expert_ids = expert_ids_;
  batch_.expert_weights = expert_weights_;
  batch_.partials = partials_;
}

void MergedBatch::Append(const MergePart& part) {
  const base::ExpertBatch& from = *part.batch;
  std::vector<uint32_t>& merged = merged_index_.emplace_back();
  merged.reserve(from.partials.size());
  size_t next = 0;
  for (size_t row = 0; row < from.row_count; ++row) {
    const bool keep = part.keep.empty() || part.keep[row] != 0;
    for (; next < from.partials.size() && from.partials[next].row == row; ++next) {
      merged.push_back(keep ? static_cast<uint32_t>(partials_.size()) : kDropped);
      if (!keep) continue;
      partials_.push_back(from.partials[next]);
      partials_.back().row = static_cast<uint32_t>(row_count_);
    }
    if (!keep) continue;
    std::memcpy(rows_ + row_count_ * row_bytes_, from.rows + row * row_bytes_, row_bytes_);
    if (!from.row_scales.empty()) row_scales_.push_back(from.row_scales[row]);
    const uint32_t begin = from.row_offsets[row];
    const uint32_t end = from.row_offsets[row + 1];
    expert_ids_.insert(expert_ids_.end(), from.expert_ids.begin() + begin,
                       from.expert_ids.begin() + end);
    expert_weights_.insert(expert_weights_.end(), from.expert_weights.begin() + begin,
                           from.expert_weights.begin() + end);
    row_offsets_.push_back(static_cast<uint32_t>(expert_ids_.size()));
    ++row_count_;
  }
}

void MergedBatch::Split(size_t part, std::span<const float> sums, std::span<float> out) const {
  const std::vector<uint32_t>& merged = merged_index_[part];
  for (size_t i = 0; i < merged.size(); ++i) {
    float* to = out.data() + i * hidden_;
    if (merged[i] == kDropped) {
      std::fill(to, to + hidden_, 0.0f);
    } else {
      std::memcpy(to, sums.data() + merged[i] * hidden_, hidden_ * sizeof(float));
    }
  }
}

}  // namespace expertmesh::expert_worker
