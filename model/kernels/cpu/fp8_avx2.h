// fp8 codes in AVX2; after simd_avx2.h. Included by avx2.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace expertmesh::model {
namespace {

inline __m256 LoadFp8Eight(__m128i codes) {
  const __m256i wide = _mm256_slli_epi32(_mm256_cvtepi8_epi32(codes), 20);
  return _mm256_castsi256_ps(
      _mm256_and_si256(wide, _mm256_set1_epi32(static_cast<int>(0x87F00000u))));
}

// Values [4][16] of a quad, times 2^-120: of a code the sign and what lies below it, twenty bits
// higher.
inline void LoadFp8Quad(const std::byte* codes, F16* values) {
  // Four outputs of every input in its 32 bits, then four such rows turned.
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  const auto row = [&](size_t i) {
    return _mm_shuffle_epi8(_mm_load_si128(reinterpret_cast<const __m128i*>(codes + i * 16)),
                            order);
  };
  const __m128i a = row(0), b = row(1), c = row(2), d = row(3);
  const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
  const __m128i cd_low = _mm_unpacklo_epi32(c, d), cd_high = _mm_unpackhi_epi32(c, d);
  const __m128i columns[4] = {
      _mm_unpacklo_epi64(ab_low, cd_low), _mm_unpackhi_epi64(ab_low, cd_low),
      _mm_unpacklo_epi64(ab_high, cd_high), _mm_unpackhi_epi64(ab_high, cd_high)};
  for (int k = 0; k < 4; ++k) {
    values[k] = {LoadFp8Eight(columns[k]), LoadFp8Eight(_mm_srli_si128(columns[k], 8))};
  }
}

}  // namespace
}  // namespace expertmesh::model
