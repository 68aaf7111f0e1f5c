// How the int8 profile's weights and rows lie in memory (docs/architecture.md §4). Products inside
// a scale group of 32 inputs are summed exactly in int32; the sums of the groups meet in one chain
// of f32 fused multiply-adds in ascending order; the row's scale comes last:
//   y[o] = row_scale · fma_g(float(Σ_{k in g} w[o][k] · x[k]), weight_scale[o][g], …)
// Every instruction set computes just this, so all give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace expertmesh::model {

inline constexpr size_t kInt8Group = 32;  // inputs of one scale group
inline constexpr int32_t kInt8Offset = 128;

/// A panel of sixteen outputs is a run of blocks of 64 inputs, each 17 cache lines:
///   scales [2 groups][16 outputs] F16, then codes [2 groups][8 quads][16 outputs][4 inputs] U8,
/// a code being the weight + 128, as vpdpbusd wants its first factor. Inputs behind the last are
/// never read with anything but zeros of the row.
inline constexpr size_t kInt8BlockInputs = 2 * kInt8Group;
inline constexpr size_t kInt8QuadBytes = 16 * 4;
inline constexpr size_t kInt8GroupBytes = kInt8Group / 4 * kInt8QuadBytes;
inline constexpr size_t kInt8ScaleBytes = 16 * 2;  // of one group
inline constexpr size_t kInt8BlockBytes = 2 * (kInt8ScaleBytes + kInt8GroupBytes);

constexpr size_t Int8Groups(size_t inputs) { return (inputs + kInt8Group - 1) / kInt8Group; }
constexpr size_t Int8PanelBytes(size_t inputs) {
  return (inputs + kInt8BlockInputs - 1) / kInt8BlockInputs * kInt8BlockBytes;
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
