// The memory of n-grams in one layer (docs/model-family.md §4.5): rows of the table become a key
// for each stream and one value, which a gate adds to every stream.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"
#include "model/kernels/linear.h"
#include "model/weight_loader.h"

namespace expertmesh::model {

/// Buffers of one step, kept between steps. One per model; used by one step at a time.
struct EngramScratch {
  std::vector<uint64_t> row_ids;            // [engram layers, rows, columns]
  std::vector<float> entries;               // [rows, columns · width]
  std::vector<float> projected;             // [rows, (n + 1) · hidden]: K_0 … K_{n−1}, V
  std::vector<std::vector<float>> threads;  // per thread: [hidden]
};

/// Immutable after Load.
class Engram {
 public:
  static absl::StatusOr<Engram> Load(const WeightLoader& loader, const Config& config,
                                     uint32_t layer);

  /// X_i += g_i · V for the rows that are alive; scratch.entries [rows, columns · width] is given
  /// and rounded to the activation type on the way, streams [rows, n · hidden].
  void AddTo(const Exec& exec, size_t rows, std::span<const uint8_t> alive, EngramScratch& scratch,
             float* streams) const;

 private:
  float Gate(const KernelTable& kernels, size_t stream, const float* x, const float* key,
             float* product) const;

  size_t streams_ = 0;
  size_t hidden_ = 0;
  float eps_ = 0;              // rms_norm_eps
  float scale_ = 0;            // hidden^-1/2
  PackedMatrix projection_;    // wkv [(n + 1) · hidden, columns · width]
  std::vector<float> weight_;  // [n, hidden], q_weight ⊙ k_weight
};

}  // namespace expertmesh::model
