// fp8 weights in AVX2; after simd_avx2.h. Included by avx2.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "model/kernels/fp8_layout.h"

namespace expertmesh::model {
namespace {

class Fp8Widener {
 public:
  void SetScale(float scale) { scale_ = _mm256_set1_ps(scale); }
  // Weights [4][16] of a quad.
  void Widen(const std::byte* codes, F16* weights) const {
    // Four outputs of every input in its 32 bits, then four such rows turned.
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    const auto row = [&](size_t i) {
      return _mm_shuffle_epi8(_mm_load_si128(reinterpret_cast<const __m128i*>(codes + i * 16)),
                              order);
    };
    const __m128i a = row(0), b = row(1), c = row(2), d = row(3);
    const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
    const __m128i cd_low = _mm_unpacklo_epi32(c, d), cd_high = _mm_unpackhi_epi32(c, d);
    weights[0] = Weights(_mm_unpacklo_epi64(ab_low, cd_low));
    weights[1] = Weights(_mm_unpackhi_epi64(ab_low, cd_low));
    weights[2] = Weights(_mm_unpacklo_epi64(ab_high, cd_high));
    weights[3] = Weights(_mm_unpackhi_epi64(ab_high, cd_high));
  }

 private:
  // The sign and what lies below it, twenty bits higher, is the value times 2^-120.
  __m256 Eight(__m128i codes) const {
    const __m256i wide = _mm256_slli_epi32(_mm256_cvtepi8_epi32(codes), 20);
    const __m256i value = _mm256_and_si256(wide, _mm256_set1_epi32(static_cast<int>(0x87F00000u)));
    const __m256i bits = _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(value), scale_));
    // To the nearest bf16, ties to even.
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    return _mm256_castsi256_ps(
        _mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
  F16 Weights(__m128i codes) const { return {Eight(codes), Eight(_mm_srli_si128(codes, 8))}; }

  __m256 scale_ = _mm256_setzero_ps();
};

}  // namespace
}  // namespace expertmesh::model
