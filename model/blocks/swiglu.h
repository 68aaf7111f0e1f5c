// SwiGLU: down(silu(gate x) ⊙ up x) (docs/formats.md §1.1); dense layers, shared and routed
// experts.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/kernels/aligned.h"
#include "model/kernels/linear.h"
#include "model/weight_loader.h"

namespace expertmesh::model {

/// Immutable after Load.
struct SwiGlu {
  PackedMatrix gate_up;  // [2·width, hidden]: gate rows, then up rows
  PackedMatrix down;     // [hidden, width]
  size_t width() const { return down.inputs; }

  /// `prefix` ends with a dot: "model.layers.0.mlp.".
  static absl::StatusOr<SwiGlu> Load(const WeightLoader& loader, const std::string& prefix,
                                     size_t hidden, size_t width);
};

/// y [rows, hidden] over the pool. x [rows, hidden] is already rounded to the profile's activation
/// type. `scratch` is resized as needed. The calling thread runs `first`, if it is given, while the
/// others begin.
void ApplySwiGlu(const Exec& exec, const SwiGlu& w, const float* x, size_t rows, float* y,
                 std::vector<float>& scratch, const base::ThreadPool::Task& first = nullptr);

/// The same on the calling thread, for weights that are not int8; scratch [rows · 2·width].
void ApplySwiGluRows(const KernelTable& kernels, const Profile& profile, const SwiGlu& w,
                     const float* x, size_t rows, float* y, float* scratch);

/// Buffers of ApplySwiGluInt8, kept between calls; one per thread.
struct SwiGluInt8Scratch {
  std::vector<float> gate_up;  // [rows, outputs of a few panels]
  std::vector<float> hidden;   // [rows, width]
  AlignedBytes quantised;      // [rows][Int8RowBytes(width)]
};

/// The same on the calling thread with int8 weights, for rows that are quantised already,
/// [rows][Int8RowBytes(hidden)]; y times the row's factor [rows]. What lies between the matrices
/// stays in the core's cache.
void ApplySwiGluInt8(const KernelTable& kernels, const SwiGlu& w, const std::byte* x, size_t rows,
                     const float* factors, float* y, SwiGluInt8Scratch& scratch);

}  // namespace expertmesh::model
