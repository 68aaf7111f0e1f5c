// The int8 operations in AVX2; after simd_avx2.h. vpmaddubsw would saturate, so codes are widened
// to 16 bits first: those of even and of odd inputs apart. Included by avx2.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace expertmesh::model {
namespace {

constexpr int kInt8RowBlock = 3;

struct I16 {
  __m256i lo;
  __m256i hi;
};
struct Codes {
  __m256i even_lo, odd_lo;
  __m256i even_hi, odd_hi;
};
struct Quad {
  __m256i even;
  __m256i odd;
};
inline __m256i BroadcastBytes(const std::byte* p) {
  int32_t value;
  __builtin_memcpy(&value, p, sizeof(value));
  return _mm256_set1_epi32(value);
}
inline I16 BroadcastInt(const std::byte* p) {
  const __m256i v = BroadcastBytes(p);
  return {v, v};
}
inline Codes SplitCodes(__m256i a, __m256i b) {
  const __m256i low = _mm256_set1_epi16(0x00FF);
  return {_mm256_and_si256(a, low), _mm256_srli_epi16(a, 8), _mm256_and_si256(b, low),
          _mm256_srli_epi16(b, 8)};
}
inline Codes LoadCodes(const std::byte* p) {
  const auto* halves = reinterpret_cast<const __m256i*>(p);
  return SplitCodes(_mm256_load_si256(halves), _mm256_load_si256(halves + 1));
}
struct Nibbles {
  __m256i a;
  __m256i b;
};
inline Nibbles LoadNibbles(const std::byte* p) {
  const auto* halves = reinterpret_cast<const __m256i*>(p);
  return {_mm256_load_si256(halves), _mm256_load_si256(halves + 1)};
}
inline __m256i Lookup(__m256i indices, const uint8_t* table) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  const __m256i low = _mm256_and_si256(indices, _mm256_set1_epi8(15));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(codes), low);
}
inline Codes LowCodes(Nibbles v, const uint8_t* table) {
  return SplitCodes(Lookup(v.a, table), Lookup(v.b, table));
}
inline Codes HighCodes(Nibbles v, const uint8_t* table) {
  return SplitCodes(Lookup(_mm256_srli_epi16(v.a, 4), table),
                    Lookup(_mm256_srli_epi16(v.b, 4), table));
}
inline Quad LoadQuad(const std::byte* p) {
  const __m256i v = BroadcastBytes(p);
  return {_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), _mm256_srai_epi16(v, 8)};
}
inline __m256i DotAddHalf(__m256i sum, __m256i even, __m256i odd, Quad x) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even, x.even));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(odd, x.odd));
}
inline I16 DotAdd(I16 sum, Codes w, Quad x) {
  return {DotAddHalf(sum.lo, w.even_lo, w.odd_lo, x), DotAddHalf(sum.hi, w.even_hi, w.odd_hi, x)};
}
inline F16 ToF16(I16 v) { return {_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)}; }
inline F16 LoadHalves(const std::byte* p) {
  const auto* halves = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_load_si128(halves)), _mm256_cvtph_ps(_mm_load_si128(halves + 1))};
}

}  // namespace
}  // namespace expertmesh::model
