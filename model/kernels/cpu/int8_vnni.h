// The int8 operations in AVX-512 with VNNI; after simd_avx512.h. Included by avx512_vnni.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace expertmesh::model {
namespace {

constexpr int kInt8RowBlock = 12;  // twelve sums, twelve chains, and the weights, in 32 registers

using I16 = __m512i;
using Codes = __m512i;
using Quad = __m512i;
inline I16 BroadcastInt(const std::byte* p) {
  int32_t value;
  __builtin_memcpy(&value, p, sizeof(value));
  return _mm512_set1_epi32(value);
}
inline Codes LoadCodes(const std::byte* p) { return _mm512_load_si512(p); }
using Nibbles = __m512i;
inline Nibbles LoadNibbles(const std::byte* p) { return _mm512_load_si512(p); }
inline Codes Lookup(__m512i indices, const uint8_t* table) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  const __m512i low = _mm512_and_si512(indices, _mm512_set1_epi8(15));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(codes), low);
}
inline Codes LowCodes(Nibbles v, const uint8_t* table) { return Lookup(v, table); }
inline Codes HighCodes(Nibbles v, const uint8_t* table) {
  return Lookup(_mm512_srli_epi16(v, 4), table);
}
inline Quad LoadQuad(const std::byte* p) { return BroadcastInt(p); }
inline I16 DotAdd(I16 sum, Codes w, Quad x) { return _mm512_dpbusd_epi32(sum, w, x); }
inline F16 ToF16(I16 v) { return _mm512_cvtepi32_ps(v); }
inline F16 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}

}  // namespace
}  // namespace expertmesh::model
