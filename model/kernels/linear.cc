#include "model/kernels/linear.h"

#include <algorithm>

namespace expertmesh::model {
namespace {

constexpr size_t kPanelsPerItem = 4;

LinearTask TaskOf(const PackedMatrix& w, const float* x, size_t x_stride, size_t rows, float* y,
                  size_t y_stride) {
  return {w.panels, w.dtype, w.inputs, w.outputs, x, x_stride, rows, y, y_stride};
}

}  // namespace

void LinearRows(const KernelTable& kernels, const PackedMatrix& w, const float* x, size_t x_stride,
                size_t rows, float* y, size_t y_stride) {
  kernels.linear(TaskOf(w, x, x_stride, rows, y, y_stride), 0, w.panel_count());
}

void Linear(const Exec& exec, const PackedMatrix& w, const float* x, size_t x_stride, size_t rows,
            float* y, size_t y_stride) {
  if (rows == 0) return;
  const LinearTask task = TaskOf(w, x, x_stride, rows, y, y_stride);
  const size_t panels = w.panel_count();
  const size_t items = (panels + kPanelsPerItem - 1) / kPanelsPerItem;
  exec.pool.ParallelFor(items, GrainFor(rows * w.inputs * kPanelsPerItem * kPanelOutputs),
                        [&](size_t begin, size_t end, int) {
                          exec.kernels.linear(task, begin * kPanelsPerItem,
                                              std::min(end * kPanelsPerItem, panels));
                        });
}

}  // namespace expertmesh::model
