// fp8 codes in AVX-512 without VBMI; after simd_avx512.h. Included by avx512.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace expertmesh::model {
namespace {

// Values [4][16] of a quad, times 2^-120: of a code the sign and what lies below it, twenty bits
// higher.
inline void LoadFp8Quad(const std::byte* codes, F16* values) {
  // Four outputs of every input in its 32 bits, four such rows.
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  const __m512i rows = _mm512_shuffle_epi8(_mm512_load_si512(codes), _mm512_broadcast_i32x4(order));
  const __m512i kept = _mm512_set1_epi32(static_cast<int>(0x87F00000u));
  for (int k = 0; k < 4; ++k) {
    const __m512i column = _mm512_add_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), _mm512_set1_epi32(k));
    const __m128i sixteen = _mm512_castsi512_si128(_mm512_permutexvar_epi32(column, rows));
    values[k] = _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_slli_epi32(_mm512_cvtepi8_epi32(sixteen), 20), kept));
  }
}

}  // namespace
}  // namespace expertmesh::model
