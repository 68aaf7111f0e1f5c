// fp8 weights in AVX-512 with VBMI: the bf16 numbers that a scale makes of the 128 codes without a
// sign are looked up, sixty-four at a time. After simd_avx512.h; included by avx512_vbmi.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "model/kernels/fp8_layout.h"

namespace expertmesh::model {
namespace {

class Fp8Widener {
 public:
  void SetScale(float scale) {
    const auto bits = __builtin_bit_cast(uint32_t, scale);
    if (bits == scale_bits_) return;  // a block of a file is larger than a group
    scale_bits_ = bits;
    for (int half = 0; half < 2; ++half) {
      __m512i low = _mm512_setzero_si512(), high = low;
      low = _mm512_inserti32x4(low, Bytes<16>(half * 64, scale), 0);
      low = _mm512_inserti32x4(low, Bytes<16>(half * 64 + 16, scale), 1);
      low = _mm512_inserti32x4(low, Bytes<16>(half * 64 + 32, scale), 2);
      low = _mm512_inserti32x4(low, Bytes<16>(half * 64 + 48, scale), 3);
      high = _mm512_inserti32x4(high, Bytes<24>(half * 64, scale), 0);
      high = _mm512_inserti32x4(high, Bytes<24>(half * 64 + 16, scale), 1);
      high = _mm512_inserti32x4(high, Bytes<24>(half * 64 + 32, scale), 2);
      high = _mm512_inserti32x4(high, Bytes<24>(half * 64 + 48, scale), 3);
      low_[half] = low;
      high_[half] = high;
    }
  }
  // Weights [4][16] of a quad.
  void Widen(const std::byte* codes, F16* weights) const {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i c = _mm512_load_si512(codes);
    const __m512i low = _mm512_permutex2var_epi8(low_[0], c, low_[1]);
    const __m512i magnitude = _mm512_permutex2var_epi8(high_[0], c, high_[1]);
    constexpr int kXorOfAnd = 0x78;  // a ^ (b & c)
    const __m512i high = _mm512_ternarylogic_epi32(magnitude, c, sign, kXorOfAnd);
    const __m512i first = _mm512_unpacklo_epi8(low, high);   // two inputs in every 32 bits
    const __m512i second = _mm512_unpackhi_epi8(low, high);  // the other two
    weights[0] = _mm512_castsi512_ps(_mm512_slli_epi32(first, 16));
    weights[1] = _mm512_castsi512_ps(_mm512_and_si512(first, upper));
    weights[2] = _mm512_castsi512_ps(_mm512_slli_epi32(second, 16));
    weights[3] = _mm512_castsi512_ps(_mm512_and_si512(second, upper));
  }

 private:
  // Bits [kShift, kShift + 8) of the weights of sixteen codes.
  template <int kShift>
  static __m128i Bytes(int code, float scale) {
    const __m512i codes =
        _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(code));
    const F16 value = _mm512_castsi512_ps(_mm512_slli_epi32(codes, 20));
    const F16 weights = RoundLanesBf16(Mul(value, Broadcast(scale)));
    return _mm512_cvtepi32_epi8(_mm512_srli_epi32(_mm512_castps_si512(weights), kShift));
  }

  uint32_t scale_bits_ = 0x7FC00000u;  // no scale is a NaN
  __m512i low_[2] = {};                // lower bytes of the codes' bf16 numbers
  __m512i high_[2] = {};               // upper bytes
};

}  // namespace
}  // namespace expertmesh::model
