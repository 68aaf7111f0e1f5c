// Rows become columns, in blocks of registers. Included by kernel_bodies.h, in an unnamed namespace
// as everything there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/bf16.h"
#include "model/kernels/kernel_table.h"

namespace expertmesh::model {
namespace {

using F4 = float __attribute__((vector_size(16)));

// Four rows × four columns, in registers.
inline void TransposeFour(const float* rows, size_t width, float* columns, size_t stride) {
  F4 in[4];
  for (int i = 0; i < 4; ++i) __builtin_memcpy(&in[i], rows + i * width, sizeof(F4));
  const F4 low01 = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
  const F4 high01 = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
  const F4 low23 = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
  const F4 high23 = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
  const F4 out[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                     __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                     __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                     __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) __builtin_memcpy(columns + i * stride, &out[i], sizeof(F4));
}

void Transpose(const float* rows, size_t width, size_t count, float* columns, size_t stride) {
  size_t s = 0;
  if (kTransposesSixteen) {
    for (; count - s >= 16; s += 16) {
      size_t d = 0;
      for (; width - d >= 16; d += 16) {
        TransposeSixteen(rows + s * width + d, width, columns + d * stride + s, stride);
      }
      for (; d < width; ++d) {
        for (size_t i = s; i < s + 16; ++i) columns[d * stride + i] = rows[i * width + d];
      }
    }
  }
  const size_t width4 = width / 4 * 4;
  for (; count - s >= 4; s += 4) {
    for (size_t d = 0; d < width4; d += 4) {
      TransposeFour(rows + s * width + d, width, columns + d * stride + s, stride);
    }
    for (size_t d = width4; d < width; ++d) {
      for (size_t i = s; i < s + 4; ++i) columns[d * stride + i] = rows[i * width + d];
    }
  }
  for (; s < count; ++s) {
    for (size_t d = 0; d < width; ++d) columns[d * stride + s] = rows[s * width + d];
  }
}

// Up to four bf16 rows, dims [begin, width).
inline void TransposeFewBf16(const uint16_t* rows, size_t width, size_t count, size_t begin,
                             float* columns, size_t stride) {
  constexpr size_t kDims = 64;
  float part[4][kDims];
  for (size_t d = begin; d < width; d += kDims) {
    const size_t dims = width - d < kDims ? width - d : kDims;
    for (size_t i = 0; i < count; ++i) {
      for (size_t k = 0; k < dims; ++k) part[i][k] = WidenBf16(rows[i * width + d + k]);
    }
    size_t k = 0;
    if (count == 4) {
      for (; dims - k >= 4; k += 4) {
        TransposeFour(part[0] + k, kDims, columns + (d + k) * stride, stride);
      }
    }
    for (; k < dims; ++k) {
      for (size_t i = 0; i < count; ++i) columns[(d + k) * stride + i] = part[i][k];
    }
  }
}

// Transpose of bf16 rows, in f32. Blocks of sixteen rows fetch the same of `next`.
inline void TransposeBf16(const uint16_t* rows, size_t width, size_t count, const uint16_t* next,
                          float* columns, size_t stride) {
  size_t s = 0;
  const size_t whole = kTransposesSixteen ? width / 32 * 32 : 0;
  if (kTransposesSixteen) {
    for (; count - s >= 16; s += 16) {
      for (size_t d = 0; d < whole; d += 32) {
        TransposeSixteenBf16(rows + s * width + d, width, next + s * width + d,
                             columns + d * stride + s, stride);
      }
    }
  }
  const size_t sixteens = s;
  for (s = 0; s < count; s += 4) {
    const size_t size = count - s < 4 ? count - s : 4;
    const size_t begin = s < sixteens ? whole : 0;
    TransposeFewBf16(rows + s * width, width, size, begin, columns + s, stride);
  }
}

}  // namespace
}  // namespace expertmesh::model
