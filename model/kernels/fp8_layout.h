// How weights that a file has in fp8 lie in memory under the profile bf16: as codes, a byte each.
// What they stand for is the bf16 nearest to code · scale, as if they had been rounded at load; the
// kernels make it anew every time, so that the bits are those of bf16 weights and the bytes half.
#pragma once

#include <cstddef>

namespace expertmesh::model {

inline constexpr size_t kFp8Group = 32;  // inputs of sixteen outputs that share a scale
inline constexpr size_t kFp8Quad = 4;    // inputs whose codes share a cache line
/// A code's seven lower bits, as the upper bits of a float32's exponent and mantissa, are its value
/// times 2^-120: scales are kept with the factor in them.
inline constexpr float kFp8ScaleFactor = 0x1p120f;
inline constexpr float kFp8ScaleMax = 0x1p7f;  // magnitudes beyond it have no finite product

constexpr size_t Fp8ScaleBytes(size_t inputs) {
  return ((inputs + kFp8Group - 1) / kFp8Group * sizeof(float) + 63) / 64 * 64;
}
/// A panel of sixteen outputs: scales F32 [groups], to the end of a cache line; then quads of codes
/// E4M3, one cache line each; of missing inputs zeros.
constexpr size_t Fp8PanelBytes(size_t inputs) {
  return Fp8ScaleBytes(inputs) + (inputs + kFp8Quad - 1) / kFp8Quad * kFp8Quad * 16;
}
/// Where the code of one of the four inputs of a quad lies in its line: such that looking up the
/// two bytes of sixty-four bf16 numbers and laying them side by side leaves, in every 32 bits, an
/// output of two inputs each.
constexpr size_t Fp8CodeAt(size_t input, size_t output) {
  return output / 4 * 16 + input / 2 * 8 + output % 4 * 2 + input % 2;
}

}  // namespace expertmesh::model
