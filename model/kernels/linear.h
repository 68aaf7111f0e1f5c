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

/// All outputs of a few rows, on the calling thread.
void LinearRows(const KernelTable& kernels, const PackedMatrix& w, const float* x, size_t x_stride,
                size_t rows, float* y, size_t y_stride);

/// y [rows, w.outputs] = x [rows, w.inputs] · wᵀ over the pool; strides in floats. The caller has
/// rounded x.
void Linear(const Exec& exec, const PackedMatrix& w, const float* x, size_t x_stride, size_t rows,
            float* y, size_t y_stride);

/// Rounds n floats in place to the profile's activation type.
inline void RoundActivations(const KernelTable& kernels, const Profile& profile, float* x,
                             size_t n) {
  if (profile.activation == Dtype::kBf16) kernels.round_bf16(x, n, x);
}

}  // namespace expertmesh::model
