// Scores of the indexer, written once over the sixteen-lane type F16: the lanes are sixteen keys.
// Included by kernel_bodies.h, in an unnamed namespace as everything there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/cpu/attend_bodies.h"
#include "model/kernels/cpu/transpose_bodies.h"
#include "model/kernels/kernel_table.h"

namespace expertmesh::model {
namespace {

// sums of N heads from `head` on, then of fewer: heads in ascending order.
template <int N>
inline void IndexHeads(const IndexTask& t, const float* queries, const float* weights, size_t head,
                       float* sums) {
  for (; t.heads - head >= size_t{N}; head += N) {
    F16 dots[N];
    for (F16& dot : dots) dot = Zero();
    Chains<N>(queries + head * t.width, t.width, 1, t.width, t.columns, dots);
    for (size_t n = 0; n < N; ++n) {
      alignas(64) float dot[kKeyLanes];
      Store(dot, dots[n]);
      for (size_t j = 0; j < kKeyLanes; ++j) {
        const float positive = dot[j] < 0.0f ? 0.0f : dot[j];  // keeps NaN
        sums[j] = sums[j] + weights[head + n] * positive;
      }
    }
  }
  if constexpr (N > 1) IndexHeads<N / 2>(t, queries, weights, head, sums);
}

void IndexScores(const IndexTask& t) {
  const size_t bytes = t.width * (t.dtype == Dtype::kF32 ? sizeof(float) : sizeof(uint16_t));
  for (size_t s = 0; s < t.count; s += kKeyLanes) {
    const std::byte* keys = t.keys + s * bytes;
    const size_t count = t.count - s < kKeyLanes ? t.count - s : kKeyLanes;
    if (t.dtype == Dtype::kF32) {
      Transpose(reinterpret_cast<const float*>(keys), t.width, count, t.columns, kKeyLanes);
    } else {
      TransposeBf16(reinterpret_cast<const uint16_t*>(keys), t.width, count,
                    reinterpret_cast<const uint16_t*>(t.next + s * bytes), t.columns, kKeyLanes);
    }
    for (size_t r = 0; r < t.rows; ++r) {
      alignas(64) float sums[kKeyLanes] = {};
      IndexHeads<kChainBlock>(t, t.queries + r * t.heads * t.width, t.weights + r * t.heads, 0,
                              sums);
      float* scores = t.scores + r * t.score_stride + s;
      for (size_t j = 0; j < count; ++j) scores[j] = t.factor * sums[j] + 0.0f;
    }
  }
}

}  // namespace
}  // namespace expertmesh::model
