// Routed experts of one slice: rows + partial list → partial sums. A pure function of its inputs and
// weights (invariant 1). The expert worker adds streams and batching; `inproc` calls it directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/profile.h"
#include "services/base/expert_node.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {

/// One layer's rows for this slice; the same layout as the dispatch payload (docs/protocol.md §1).
/// The caller has checked counts, order and that all experts are hosted.
struct ExpertBatch {
  uint32_t layer = 0;
  size_t row_count = 0;
  Dtype row_dtype = Dtype::kF32;
  const std::byte* rows = nullptr;                 // [row_count, hidden] of row_dtype, 64-aligned
  std::span<const uint32_t> row_offsets;           // [row_count + 1]
  std::span<const uint16_t> expert_ids;            // [entries], ascending inside a row
  std::span<const float> expert_weights;           // [entries]
  std::span<const base::PartialNode> partials;     // ordered by (row, first_expert)
};

/// Immutable after Load; Compute may be called from one thread at a time (it uses the pool).
class ExpertSlice {
 public:
  struct Options {
    std::string directory;                   // Hugging Face directory
    std::string profile = "bf16";
    std::vector<base::ExpertRange> experts;  // global ids; the same in every MoE layer
  };
  static absl::StatusOr<std::unique_ptr<ExpertSlice>> Load(const Options& options);
  virtual ~ExpertSlice() = default;

  /// Writes the partial sums [partials.size(), hidden] in f32: per partial the combine tree over its
  /// chosen experts, leaf = weight · expert(row) rounded to f32.
  virtual void Compute(const ExpertBatch& batch, base::ThreadPool& pool,
                       std::span<float> sums) const = 0;

  virtual bool Hosts(uint32_t expert) const = 0;
  virtual bool HasRoutedExperts(uint32_t layer) const = 0;
  virtual uint32_t hidden_size() const = 0;
  virtual uint32_t expert_count() const = 0;  // of the whole model
  virtual uint64_t weight_bytes() const = 0;
  virtual const std::string& revision() const = 0;
  virtual const Profile& profile() const = 0;
  /// Hash of kernel output bits on fixed inputs.
  virtual const std::string& fingerprint() const = 0;
};

}  // namespace expertmesh::model
