// The int8 operations in plain C++; after simd_scalar.h. Included by baseline.cc only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace expertmesh::model {
namespace {

constexpr int kInt8RowBlock = 1;

struct I16 {
  int32_t v[16];
};
struct Codes {
  const std::byte* p;
};
struct Quad {
  const std::byte* p;
};
inline I16 BroadcastInt(const std::byte* p) {
  int32_t value;
  __builtin_memcpy(&value, p, sizeof(value));
  I16 r;
  for (int32_t& lane : r.v) lane = value;
  return r;
}
inline Codes LoadCodes(const std::byte* p) { return {p}; }
struct Nibbles {
  const std::byte* p;
};
struct Decoded {
  uint8_t v[64];
};
inline Nibbles LoadNibbles(const std::byte* p) { return {p}; }
inline Decoded Lookup(Nibbles nibbles, int shift, const uint8_t* table) {
  Decoded r;
  for (int i = 0; i < 64; ++i) r.v[i] = table[static_cast<uint8_t>(nibbles.p[i]) >> shift & 15];
  return r;
}
inline Decoded LowCodes(Nibbles v, const uint8_t* table) { return Lookup(v, 0, table); }
inline Decoded HighCodes(Nibbles v, const uint8_t* table) { return Lookup(v, 4, table); }
inline Quad LoadQuad(const std::byte* p) { return {p}; }
inline I16 DotAdd(I16 sum, Codes w, Quad x) {
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 4; ++k) {
      sum.v[i] += static_cast<uint8_t>(w.p[i * 4 + k]) * static_cast<int8_t>(x.p[k]);
    }
  }
  return sum;
}
inline I16 DotAdd(I16 sum, const Decoded& w, Quad x) {
  return DotAdd(sum, Codes{reinterpret_cast<const std::byte*>(w.v)}, x);
}
inline F16 ToF16(const I16& v) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<float>(v.v[i]);
  return r;
}
// IEEE binary16 without the instruction: as DecodeF16, which is not inlined everywhere.
inline float WidenHalf(uint16_t code) {
  const uint32_t exponent = (code >> 10) & 31u;
  const uint32_t mantissa = code & 0x3FFu;
  uint32_t bits = __builtin_bit_cast(uint32_t, static_cast<float>(mantissa) * 0x1p-24f);
  if (exponent != 0) bits = (exponent + 112) << 23 | mantissa << 13;
  if (exponent == 31) bits = 0x7F800000u | mantissa << 13;
  return __builtin_bit_cast(float, uint32_t{code & 0x8000u} << 16 | bits);
}
inline F16 LoadHalves(const std::byte* p) {
  F16 r;
  for (int i = 0; i < 16; ++i) {
    uint16_t code;
    __builtin_memcpy(&code, p + i * 2, sizeof(code));
    r.v[i] = WidenHalf(code);
  }
  return r;
}

}  // namespace
}  // namespace expertmesh::model
