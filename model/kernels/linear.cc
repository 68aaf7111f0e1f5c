#include "model/kernels/linear.h"

#include <algorithm>
#include <utility>

#include "model/kernels/aligned.h"

namespace expertmesh::model {
namespace {

constexpr size_t kPanelsPerItem = 4;
// A byte of weights from memory takes the time of about three f32 multiply-adds; four int8 ones
// take that of one.
constexpr size_t kWorkOfReading = 3;

LinearTask TaskOf(const PackedMatrix& w, const float* x, size_t x_stride, size_t rows, float* y,
                  size_t y_stride) {
  return {w.panels, w.dtype, w.inputs, w.outputs, x, x_stride, rows, y, y_stride};
}

void RunPanels(const KernelTable& kernels, const LinearTask& task, size_t begin, size_t end) {
  (task.dtype == Dtype::kFp8 ? kernels.linear_fp8 : kernels.linear)(task, begin, end);
}

// Of few rows a loop is short and bound by memory, which the cores share unevenly: it is cut finer.
size_t ChunksPerThread(size_t rows) {
  constexpr size_t kFewRows = 4;
  return rows <= kFewRows ? 8 : 4;
}

// Rows of the Linear that this thread runs; grows to the largest.
AlignedBytes& QuantisedRows() {
  thread_local AlignedBytes rows;
  return rows;
}

void LinearInt8(const Exec& exec, const PackedMatrix& w, const float* x, size_t x_stride,
                size_t rows, float* y, size_t y_stride, const base::ThreadPool::Task& first) {
  const size_t row_bytes = Int8RowBytes(w.inputs);
  AlignedBytes buffer = std::move(QuantisedRows());  // `first` may have a Linear of its own
  std::byte* records = buffer.Resize(rows * row_bytes);
  exec.pool.ParallelFor(rows, GrainFor(16 * w.inputs), [&](size_t begin, size_t end, int) {
    for (size_t r = begin; r < end; ++r) {
      exec.kernels.quantise_row(x + r * x_stride, w.inputs, records + r * row_bytes);
    }
  });
  const size_t work = (kWorkOfReading + rows / 4) * w.inputs * kPanelOutputs;
  exec.pool.ParallelForBeside(
      first, w.panel_count(), GrainFor(work),
      [&](size_t begin, size_t end, int) {
        LinearInt8Rows(exec.kernels, w, records, rows, begin, end, y, y_stride);
      },
      ChunksPerThread(rows));
  QuantisedRows() = std::move(buffer);
}

}  // namespace

void LinearInt8Rows(const KernelTable& kernels, const PackedMatrix& w, const std::byte* rows,
                    size_t row_count, size_t panel_begin, size_t panel_end, float* y,
                    size_t y_stride, const float* factors) {
  kernels.linear_int8(
      {w.panels, w.inputs, w.outputs, rows, row_count, y, y_stride, factors, w.dtype}, panel_begin,
      panel_end);
}

void LinearRows(const KernelTable& kernels, const PackedMatrix& w, const float* x, size_t x_stride,
                size_t rows, float* y, size_t y_stride) {
  if (IsInt8Weight(w.dtype)) {
    const size_t row_bytes = Int8RowBytes(w.inputs);
    std::byte* records = QuantisedRows().Resize(rows * row_bytes);
    for (size_t r = 0; r < rows; ++r) {
      kernels.quantise_row(x + r * x_stride, w.inputs, records + r * row_bytes);
    }
    return LinearInt8Rows(kernels, w, records, rows, 0, w.panel_count(), y, y_stride);
  }
  RunPanels(kernels, TaskOf(w, x, x_stride, rows, y, y_stride), 0, w.panel_count());
}

void Linear(const Exec& exec, const PackedMatrix& w, const float* x, size_t x_stride, size_t rows,
            float* y, size_t y_stride, const base::ThreadPool::Task& first) {
  if (rows == 0) {
    if (first) first();
    return;
  }
  if (IsInt8Weight(w.dtype)) return LinearInt8(exec, w, x, x_stride, rows, y, y_stride, first);
  const LinearTask task = TaskOf(w, x, x_stride, rows, y, y_stride);
  const size_t panels = w.panel_count();
  const size_t items = (panels + kPanelsPerItem - 1) / kPanelsPerItem;
  exec.pool.ParallelForBeside(
      first, items, GrainFor(rows * w.inputs * kPanelsPerItem * kPanelOutputs),
      [&](size_t begin, size_t end, int) {
        RunPanels(exec.kernels, task, begin * kPanelsPerItem,
                  std::min(end * kPanelsPerItem, panels));
      },
      ChunksPerThread(rows));
}

}  // namespace expertmesh::model
