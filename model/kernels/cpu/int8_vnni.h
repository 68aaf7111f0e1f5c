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
inline Quad LoadQuad(const std::byte* p) { return BroadcastInt(p); }
inline I16 DotAdd(I16 sum, Codes w, Quad x) { return _mm512_dpbusd_epi32(sum, w, x); }
inline F16 ToF16(I16 v) { return _mm512_cvtepi32_ps(v); }
inline F16 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}

}  // namespace
}  // namespace expertmesh::model
