// SwiGLU: down(silu(gate x) ⊙ up x) (docs/formats.md §1.1); dense layers, shared and routed
// experts.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
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
/// type. `scratch` is resized as needed.
void ApplySwiGlu(const Exec& exec, const SwiGlu& w, const float* x, size_t rows, float* y,
                 std::vector<float>& scratch);

/// The same on the calling thread; scratch [rows · 2·width].
void ApplySwiGluRows(const KernelTable& kernels, const Profile& profile, const SwiGlu& w,
                     const float* x, size_t rows, float* y, float* scratch);

}  // namespace expertmesh::model
