// Several residual streams (mHC, docs/model-family.md §4.2, §4.3, §4.7): collapse to one row before
// a sublayer, expand its output back into the streams. Float32 in every profile.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"
#include "model/kernels/linear.h"
#include "model/weight_loader.h"

namespace expertmesh::model {

/// Buffers of one step, kept between steps. One per model; used by one step at a time.
struct MixScratch {
  std::vector<float> mixes;  // [rows, 2n + n²]: pre [n], post [n], comb [n, n] (row = source)
  std::vector<float> next;   // [rows, n·hidden], the streams after Expand
};

/// The mixes of one sublayer. Immutable after Load.
class HyperConnection {
 public:
  /// `prefix` ends with a dot: "model.layers.0.attn_hc.".
  static absl::StatusOr<HyperConnection> Load(const WeightLoader& loader, const Config& config,
                                              const std::string& prefix);

  /// Fills scratch.mixes from the streams [rows, n·hidden] and writes u [rows, hidden].
  void Collapse(const Exec& exec, const float* streams, size_t rows, MixScratch& scratch,
                float* u) const;
  /// X_j ← post_j · y + Σ_i P_ij X_i with the mixes of the last Collapse; y [rows, hidden].
  void Expand(const Exec& exec, const float* y, size_t rows, MixScratch& scratch,
              std::vector<float>& streams) const;

 private:
  void Settle(const KernelTable& kernels, const float* streams, float* mixes) const;
  void Sinkhorn(float* comb) const;

  size_t streams_ = 0;
  size_t hidden_ = 0;
  uint32_t iterations_ = 0;
  float eps_ = 0;
  float norm_eps_ = 0;
  PackedMatrix fn_;           // [2n + n², n·hidden]
  std::vector<float> base_;   // [2n + n²]
  std::vector<float> scale_;  // [3]
};

/// The collapse before the head (§4.7). Immutable after Load.
class HeadCollapse {
 public:
  static absl::StatusOr<HeadCollapse> Load(const WeightLoader& loader, const Config& config);
  /// u [rows, hidden] from the streams [rows, n·hidden].
  void Collapse(const Exec& exec, const float* streams, size_t rows, MixScratch& scratch,
                float* u) const;

 private:
  size_t streams_ = 0;
  size_t hidden_ = 0;
  float eps_ = 0;
  float norm_eps_ = 0;
  PackedMatrix fn_;           // [n, n·hidden]
  std::vector<float> base_;   // [n]
  std::vector<float> scale_;  // [1]
};

}  // namespace expertmesh::model
