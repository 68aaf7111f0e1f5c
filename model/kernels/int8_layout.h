// How the int8 profile's weights and rows lie in memory (docs/architecture.md §4). Products inside
// a scale group of 32 inputs are summed exactly in int32; the sums of the groups meet in one chain
// of f32 fused multiply-adds in ascending order; the row's scale comes last:
//   y[o] = row_scale · fma_g(float(Σ_{k in g} w[o][k] · x[k]), weight_scale[o][g], …)
// Every instruction set computes just this, so all give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "model/profile.h"

namespace expertmesh::model {

inline constexpr size_t kInt8Group = 32;  // inputs of one scale group
inline constexpr int32_t kInt8Offset = 128;

/// Weights that are whole numbers times a scale: what a file has in int8, int4 or fp4 stays as it
/// is, in one byte or in half of one.
constexpr bool IsInt8Weight(Dtype dtype) {
  return dtype == Dtype::kInt8 || dtype == Dtype::kInt4 || dtype == Dtype::kFp4;
}
constexpr bool IsFourBit(Dtype dtype) { return dtype == Dtype::kInt4 || dtype == Dtype::kFp4; }

/// A panel of sixteen outputs is a run of blocks of 64 inputs, each 17 cache lines, or 9 in four
/// bits: scales [2 groups][16 outputs], then codes [2 groups][8 quads][16 outputs][4 inputs].
///   kInt8  scale F16, code U8 = weight + 128, as vpdpbusd wants its first factor
///   kInt4  scale F16, a byte holds the same place of two quads, the first in its low nibble;
///          nibble = weight + 8
///   kFp4   the same; scale BF16 = half the file's, nibble = E2M1, whose doubles are whole
/// Inputs behind the last are never read with anything but zeros of the row.
inline constexpr size_t kInt8BlockInputs = 2 * kInt8Group;
inline constexpr size_t kInt8QuadBytes = 16 * 4;
inline constexpr size_t kInt8ScaleBytes = 16 * 2;  // of one group

/// Code U8 (weight + 128) of a nibble.
inline constexpr uint8_t kInt4Codes[16] = {120, 121, 122, 123, 124, 125, 126, 127,
                                           128, 129, 130, 131, 132, 133, 134, 135};
inline constexpr uint8_t kFp4Codes[16] = {128, 129, 130, 131, 132, 134, 136, 140,
                                          128, 127, 126, 125, 124, 122, 120, 116};

constexpr size_t Int8Groups(size_t inputs) { return (inputs + kInt8Group - 1) / kInt8Group; }
constexpr size_t Int8GroupBytes(Dtype dtype) {
  return kInt8Group / 4 * kInt8QuadBytes / (IsFourBit(dtype) ? 2 : 1);
}
constexpr size_t Int8BlockBytes(Dtype dtype) {
  return 2 * (kInt8ScaleBytes + Int8GroupBytes(dtype));
}
constexpr size_t Int8PanelBytes(Dtype dtype, size_t inputs) {
  return (inputs + kInt8BlockInputs - 1) / kInt8BlockInputs * Int8BlockBytes(dtype);
}

/// A quantised row is one record, 64-aligned:
///   codes S8 [groups][32], zero behind the last input; starts I32 [groups] = −128 · Σ codes, which
///   takes the offset of the weights' codes out again; scale F32.
constexpr size_t Int8StartsAt(size_t inputs) { return Int8Groups(inputs) * kInt8Group; }
constexpr size_t Int8ScaleAt(size_t inputs) {
  return Int8StartsAt(inputs) + Int8Groups(inputs) * sizeof(int32_t);
}
constexpr size_t Int8RowBytes(size_t inputs) {
  return (Int8ScaleAt(inputs) + sizeof(float) + 63) / 64 * 64;
}

/// The record of a row that came quantised (base/int8_row.h): the same bytes as those of the kernel
/// that quantises.
inline void StoreInt8Record(const int8_t* codes, float scale, size_t inputs, std::byte* record) {
  std::memset(record, 0, Int8RowBytes(inputs));
  std::memcpy(record, codes, inputs);
  for (size_t g = 0; g < Int8Groups(inputs); ++g) {
    int32_t start = 0;
    for (size_t k = 0; k < kInt8Group; ++k) {
      start += static_cast<int8_t>(record[g * kInt8Group + k]);
    }
    start *= -kInt8Offset;
    std::memcpy(record + Int8StartsAt(inputs) + g * sizeof(start), &start, sizeof(start));
  }
  std::memcpy(record + Int8ScaleAt(inputs), &scale, sizeof(scale));
}

}  // namespace expertmesh::model
