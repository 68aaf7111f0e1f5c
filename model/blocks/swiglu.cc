#include "model/blocks/swiglu.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr size_t kSwiGluPanels = 4;  // of gate and of up that are computed together

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
                 std::vector<float>& scratch, const base::ThreadPool::Task& first) {
  const size_t width = w.width();
  scratch.resize(rows * 2 * width);
  Linear(exec, w.gate_up, x, w.gate_up.inputs, rows, scratch.data(), 2 * width, first);
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

void ApplySwiGluInt8(const KernelTable& kernels, const SwiGlu& w, const std::byte* x, size_t rows,
                     const float* factors, float* y, SwiGluInt8Scratch& scratch) {
  const size_t width = w.width();
  scratch.hidden.resize(rows * width);
  // Gate and up of the same outputs at once; all of them where up does not begin at a panel.
  const size_t panels = (width + kPanelOutputs - 1) / kPanelOutputs;
  const size_t step = width % kPanelOutputs == 0 ? kSwiGluPanels : panels;
  for (size_t p = 0; p < panels; p += step) {
    const size_t count = std::min(step, panels - p);
    const size_t part = std::min(count * kPanelOutputs, width);
    scratch.gate_up.resize(rows * 2 * part);
    float* gate_up = scratch.gate_up.data();
    if (part == width) {
      LinearInt8Rows(kernels, w.gate_up, x, rows, 0, w.gate_up.panel_count(), gate_up, 2 * part);
    } else {
      const PackedMatrix gate = w.gate_up.Panels(p, count);
      const PackedMatrix up = w.gate_up.Panels(panels + p, count);
      LinearInt8Rows(kernels, gate, x, rows, 0, count, gate_up, 2 * part);
      LinearInt8Rows(kernels, up, x, rows, 0, count, gate_up + part, 2 * part);
    }
    for (size_t r = 0; r < rows; ++r) {
      const float* row = gate_up + r * 2 * part;
      kernels.silu_mul(row, row + part, part,
                       scratch.hidden.data() + r * width + p * kPanelOutputs);
    }
  }
  const size_t row_bytes = Int8RowBytes(width);
  std::byte* quantised = scratch.quantised.Resize(rows * row_bytes);
  for (size_t r = 0; r < rows; ++r) {
    kernels.quantise_row(scratch.hidden.data() + r * width, width, quantised + r * row_bytes);
  }
  LinearInt8Rows(kernels, w.down, quantised, rows, 0, w.down.panel_count(), y, w.down.outputs,
                 factors);
}

}  // namespace expertmesh::model
