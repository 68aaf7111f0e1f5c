// Routed experts of one slice: rows + partial list → partial sums. A pure function of its inputs
// and weights (invariant 1). The expert worker adds streams and batching; `inproc` calls it
// directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config_overrides.h"
#include "model/packed_cache.h"
#include "model/profile.h"
#include "services/base/expert_batch.h"
#include "services/base/expert_node.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {

/// Rows, CSR of experts and partial list; the caller has checked counts, order and hosting.
using base::ExpertBatch;

/// Immutable after Load; Compute may be called from one thread at a time (it uses the pool).
class ExpertSlice {
 public:
  struct Options {
    std::string directory;  // Hugging Face directory
    std::string profile = "bf16";
    std::vector<base::ExpertRange> experts;  // global ids; the same in every MoE layer
    bool masked_gate_group_zero = false;     // part of the revision only; as in AttentionModel
    ConfigOverrides overrides = {};          // as in AttentionModel
    std::string isa = "auto";                // as in AttentionModel
    /// Packed weights of at least so many bytes are kept in a file beside the model for the next
    /// start (packed_cache.h); as in AttentionModel.
    uint64_t packed_file_bytes_min = kPackedFileBytesMin;
  };
  static absl::StatusOr<std::unique_ptr<ExpertSlice>> Load(const Options& options);
  virtual ~ExpertSlice() = default;

  /// Writes the partial sums [partials.size(), hidden] in f32: per partial the combine tree over
  /// its chosen experts, leaf = weight · expert(row) rounded to f32.
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
