// How weights that a file has in fp8 lie in memory under the profile bf16: as codes, a byte each.
// What they stand for is the bf16 nearest to code · scale, as if they had been rounded at load; the
// kernels make it anew every time, so that the bits are those of bf16 weights and the bytes half.
#pragma once

#include <cstddef>

namespace expertmesh::model {

inline constexpr size_t kFp8Group = 32;  // inputs of sixteen outputs that share a scale
inline constexpr size_t kFp8Quad = 4;    // inputs whose codes share a cache line
/// A code's seven lower bits, shifted left by twenty, are as a float32 its value times 2^-120:
/// scales are kept with the factor in them, as far as that stays finite.
inline constexpr float kFp8ScaleFactor = 0x1p120f;
inline constexpr float kFp8ScaleMax = 0x1p8f;  // magnitudes are below it

constexpr size_t Fp8ScaleBytes(size_t inputs) {
  return ((inputs + kFp8Group - 1) / kFp8Group * sizeof(float) + 63) / 64 * 64;
}
/// A panel of sixteen outputs: scales F32 [groups], to the end of a cache line; then quads of codes
/// E4M3, one cache line each; of missing inputs zeros.
constexpr size_t Fp8PanelBytes(size_t inputs) {
  return Fp8ScaleBytes(inputs) + (inputs + kFp8Quad - 1) / kFp8Quad * kFp8Quad * 16;
}
/// Where the code of one of the four inputs of a quad lies in its line. Sixteen bytes have outputs
/// 4i … 4i + 3: o0k0 o0k1 o1k0 o1k1 o2k0 o2k1 o3k0 o3k1, then the same of inputs 2 and 3. Where the
/// lower and the upper bytes of the codes' bf16 numbers are interleaved, every 32 bits then hold
/// one output's weights for two inputs.
constexpr size_t Fp8CodeAt(size_t input, size_t output) {
  return output / 4 * 16 + input / 2 * 8 + output % 4 * 2 + input % 2;
}

}  // namespace expertmesh::model
