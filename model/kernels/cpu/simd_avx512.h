// Sixteen f32 lanes in one AVX-512 register. Included by avx512.cc only.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace expertmesh::model {
namespace {

constexpr int kRowBlock = 8;    // rows of a GEMM tile
constexpr int kPanelBlock = 2;  // panels of a GEMM tile
constexpr int kHeadBlock = 4;   // heads of an attention tile

using F16 = __m512;
inline F16 Zero() { return _mm512_setzero_ps(); }
inline F16 Load(const float* p) { return _mm512_loadu_ps(p); }
inline F16 Load(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline void Store(float* p, F16 v) { _mm512_storeu_ps(p, v); }
inline F16 Broadcast(float v) { return _mm512_set1_ps(v); }
inline F16 Mul(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
inline F16 Add(F16 a, F16 b) { return _mm512_add_ps(a, b); }
inline F16 Fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }

}  // namespace
}  // namespace expertmesh::model
