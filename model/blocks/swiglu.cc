#include "model/blocks/swiglu.h"

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

// gate_up [2·width] of one row becomes h [width] in its first half, rounded for the next Linear.
void Activate(const KernelTable& kernels, const Profile& profile, size_t width, float* gate_up) {
  kernels.silu_mul(gate_up, gate_up + width, width, gate_up);
  RoundActivations(kernels, profile, gate_up, width);
}

}  // namespace

absl::StatusOr<SwiGlu> SwiGlu::Load(const WeightLoader& loader, const std::string& prefix,
                                    size_t hidden, size_t width) {
  SwiGlu w;
  EM_ASSIGN_OR_RETURN(w.gate_up, loader.Stacked({{absl::StrCat(prefix, "gate_proj.weight"), width},
                                                 {absl::StrCat(prefix, "up_proj.weight"), width}},
                                                hidden));
  EM_ASSIGN_OR_RETURN(w.down,
                      loader.Matrix(absl::StrCat(prefix, "down_proj.weight"), hidden, width));
  return w;
}

void ApplySwiGlu(const Exec& exec, const SwiGlu& w, const float* x, size_t rows, float* y,
                 std::vector<float>& scratch) {
  const size_t width = w.width();
  scratch.resize(rows * 2 * width);
  Linear(exec, w.gate_up, x, w.gate_up.inputs, rows, scratch.data(), 2 * width);
  exec.pool.ParallelFor(rows, GrainFor(16 * width), [&](size_t begin, size_t end, int) {
    for (size_t r = begin; r < end; ++r) {
      Activate(exec.kernels, exec.profile, width, scratch.data() + r * 2 * width);
    }
  });
  Linear(exec, w.down, scratch.data(), 2 * width, rows, y, w.down.outputs);
}

void ApplySwiGluRows(const KernelTable& kernels, const Profile& profile, const SwiGlu& w,
                     const float* x, size_t rows, float* y, float* scratch) {
  const size_t width = w.width();
  LinearRows(kernels, w.gate_up, x, w.gate_up.inputs, rows, scratch, 2 * width);
  for (size_t r = 0; r < rows; ++r) Activate(kernels, profile, width, scratch + r * 2 * width);
  LinearRows(kernels, w.down, scratch, 2 * width, rows, y, w.down.outputs);
}

}  // namespace expertmesh::model
