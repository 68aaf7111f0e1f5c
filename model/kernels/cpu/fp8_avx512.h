// fp8 weights in AVX-512 without VBMI; after simd_avx512.h. Included by avx512.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "model/kernels/fp8_layout.h"

namespace expertmesh::model {
namespace {

class Fp8Widener {
 public:
  void SetScale(float scale) { scale_ = _mm512_set1_ps(scale); }
  // Weights [4][16] of a quad.
  void Widen(const std::byte* codes, F16* weights) const {
    // Four outputs of every input in its 32 bits, four such rows.
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    const __m512i rows =
        _mm512_shuffle_epi8(_mm512_load_si512(codes), _mm512_broadcast_i32x4(order));
    for (int k = 0; k < 4; ++k) {
      const __m512i column = _mm512_add_epi32(
          _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), _mm512_set1_epi32(k));
      weights[k] = Weights(_mm512_castsi512_si128(_mm512_permutexvar_epi32(column, rows)));
    }
  }

 private:
  F16 Weights(__m128i codes) const {
    // The sign and what lies below it, twenty bits higher, is the value times 2^-120.
    const __m512i wide = _mm512_slli_epi32(_mm512_cvtepi8_epi32(codes), 20);
    const __m512i value = _mm512_and_si512(wide, _mm512_set1_epi32(static_cast<int>(0x87F00000u)));
    const __m512i bits = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(value), scale_));
    // To the nearest bf16, ties to even.
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    return _mm512_castsi512_ps(
        _mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }

  __m512 scale_ = _mm512_setzero_ps();
};

}  // namespace
}  // namespace expertmesh::model
