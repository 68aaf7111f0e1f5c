// Sixteen f32 lanes in one AVX-512 register. Included by avx512*.cc.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace expertmesh::model {
namespace {

constexpr int kRowBlock = 8;     // rows of a GEMM tile
constexpr int kPanelBlock = 2;   // panels of a GEMM tile
constexpr int kChainBlock = 16;  // sums that attention keeps in registers
constexpr int kPairBlock = 8;    // the same for two sets of lanes

using F16 = __m512;
inline F16 Zero() { return _mm512_setzero_ps(); }
inline F16 Load(const float* p) { return _mm512_loadu_ps(p); }
inline F16 Load(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
// Numbers rounded to the nearest bf16, ties to even; none is a NaN.
inline F16 RoundLanesBf16(F16 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  return _mm512_castsi512_ps(
      _mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
inline void Store(float* p, F16 v) { _mm512_storeu_ps(p, v); }
inline F16 Broadcast(float v) { return _mm512_set1_ps(v); }
inline F16 Mul(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
inline F16 Fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }

// Sixteen registers of sixteen 32-bit values become their columns: four perfect shuffles.
template <class Permute, class V>
inline void TransposeRegisters(Permute permute, V (&a)[16]) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  V b[16];
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) {
      b[2 * i] = permute(a[i], low, a[i + 8]);
      b[2 * i + 1] = permute(a[i], high, a[i + 8]);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; ++i) a[i] = b[i];
  }
}

// Sixteen rows of sixteen, `width` apart, become columns, `stride` apart.
constexpr bool kTransposesSixteen = true;
inline void TransposeSixteen(const float* rows, size_t width, float* out, size_t stride) {
  __m512 a[16];
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(rows + i * width);
  TransposeRegisters(
      [](__m512 x, __m512i order, __m512 y) { return _mm512_permutex2var_ps(x, order, y); }, a);
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; ++i) _mm512_storeu_ps(out + i * stride, a[i]);
}

// Sixteen rows of thirty-two bf16 become columns in f32; fetches the same of `next`.
inline void TransposeSixteenBf16(const uint16_t* rows, size_t width, const uint16_t* next,
                                 float* out, size_t stride) {
  __m512i a[16];  // pairs
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; ++i) {
    a[i] = _mm512_loadu_si512(rows + i * width);
    __builtin_prefetch(next + i * width, 0, 2);
  }
  TransposeRegisters(
      [](__m512i x, __m512i order, __m512i y) { return _mm512_permutex2var_epi32(x, order, y); },
      a);
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; ++i) {
    _mm512_storeu_si512(out + 2 * i * stride, _mm512_slli_epi32(a[i], 16));
    _mm512_storeu_si512(out + (2 * i + 1) * stride, _mm512_and_si512(a[i], upper));
  }
}

}  // namespace
}  // namespace expertmesh::model
