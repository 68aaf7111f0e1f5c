// Linear layers over many rows and threads. Threads split outputs only.
#pragma once

#include <cstddef>

#include "model/kernels/kernel_table.h"
#include "model/kernels/packed_matrix.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {

/// What every block needs to compute; all references outlive the step.
struct Exec {
  const KernelTable& kernels;
  const Profile& profile;
  base::ThreadPool& pool;
};

/// Multiply-adds that are worth waking another thread for.
inline constexpr size_t kMultiplyAddsPerTask = size_t{1} << 18;
/// Items per task so that a task has kMultiplyAddsPerTask, given those of one item.
inline size_t GrainFor(size_t multiply_adds_per_item) {
  return kMultiplyAddsPerTask / (multiply_adds_per_item + 1) + 1;
}

/// All outputs of a few rows, on the calling thread. int8 weights: the rows are quantised first.
void LinearRows(const KernelTable& kernels, const PackedMatrix& w, const float* x, size_t x_stride,
                size_t rows, float* y, size_t y_stride);

/// y [rows, w.outputs] = x [rows, w.inputs] · wᵀ over the pool; strides in floats. The caller has
/// rounded x; int8 weights take the f32 row and quantise it here. The calling thread runs `first`,
/// if it is given, while the others begin.
void Linear(const Exec& exec, const PackedMatrix& w, const float* x, size_t x_stride, size_t rows,
            float* y, size_t y_stride, const base::ThreadPool::Task& first = nullptr);

/// Panels [panel_begin, panel_end) for rows that are quantised already, `rows` of
/// [Int8RowBytes(w.inputs)], on the calling thread; every output times the factor of its row, if
/// given.
void LinearInt8Rows(const KernelTable& kernels, const PackedMatrix& w, const std::byte* rows,
                    size_t row_count, size_t panel_begin, size_t panel_end, float* y,
                    size_t y_stride, const float* factors = nullptr);

/// Rounds n floats in place to the profile's activation type; int8 is left to the Linear.
inline void RoundActivations(const KernelTable& kernels, const Profile& profile, float* x,
                             size_t n) {
  if (profile.activation == Dtype::kBf16) kernels.round_bf16(x, n, x);
}

}  // namespace expertmesh::model
