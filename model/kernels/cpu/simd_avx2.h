// Sixteen f32 lanes in two AVX registers. Included by avx2.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace expertmesh::model {
namespace {

constexpr int kRowBlock = 5;
constexpr int kPanelBlock = 1;
constexpr int kChainBlock = 4;  // sums that attention keeps in registers
constexpr int kPairBlock = 2;   // the same for two sets of lanes

struct F16 {
  __m256 lo;
  __m256 hi;
};
inline F16 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline __m256 Widen(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline F16 Load(const uint16_t* p) { return {Widen(p), Widen(p + 8)}; }
inline __m256 RoundEightBf16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  return _mm256_castsi256_ps(
      _mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
// Numbers rounded to the nearest bf16, ties to even; none is a NaN.
inline F16 RoundLanesBf16(F16 v) { return {RoundEightBf16(v.lo), RoundEightBf16(v.hi)}; }
inline void Store(float* p, F16 v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
inline F16 Broadcast(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline F16 Mul(F16 a, F16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F16 Fma(F16 a, F16 b, F16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

// Four by four do.
constexpr bool kTransposesSixteen = false;
inline void TransposeSixteen(const float*, size_t, float*, size_t) {}
inline void TransposeSixteenBf16(const uint16_t*, size_t, const uint16_t*, float*, size_t) {}

}  // namespace
}  // namespace expertmesh::model
