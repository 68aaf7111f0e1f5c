// Small number formats of weight files (docs/formats.md §7.2). Decoding is exact; encoding rounds
// to nearest, ties to even, and saturates where the format has no infinity. bfloat16 is in
// kernels/bf16.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace expertmesh::model {

inline constexpr float kE4m3Max = 448.0f;
inline constexpr float kE2m1Max = 6.0f;

/// F8_E4M3 (1-4-3, bias 7, no infinities): codes 0x7F and 0xFF are NaN.
inline float DecodeE4m3(uint8_t code) {
  const uint32_t exponent = (code >> 3) & 15u;
  const uint32_t mantissa = code & 7u;
  float value = static_cast<float>(mantissa) * 0x1p-9f;
  if (exponent != 0) value = std::bit_cast<float>((exponent + 120) << 23 | mantissa << 20);
  if ((code & 0x7Fu) == 0x7Fu) value = std::numeric_limits<float>::quiet_NaN();
  return (code & 0x80u) != 0 ? -value : value;
}

/// Beyond ±448 saturates; NaN becomes 0x7F.
inline uint8_t EncodeE4m3(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const uint32_t sign = bits >> 24 & 0x80u;
  if (magnitude > 0x7F800000u) return 0x7F;
  uint32_t code = 0;
  if (magnitude < std::bit_cast<uint32_t>(0x1p-6f)) {
    // One unit in the last place of 2^14 is the smallest subnormal, 2^-9.
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
    code = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0x1p14f);
  } else {
    code = ((magnitude + 0x7FFFFu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
  }
  return static_cast<uint8_t>(sign | (code < 0x7Eu ? code : 0x7Eu));
}

/// F8_E8M0: 2^(code − 127), 0xFF is NaN. Code 0 is 2^-127, a subnormal.
inline float DecodeE8m0(uint8_t code) {
  if (code == 0xFF) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(code == 0 ? 0x00400000u : uint32_t{code} << 23);
}

/// The code of the smallest power of two ≥ value, for finite value > 0: ⌈log2⌉ from the exponent
/// bits, so that no libm decides at an exact power of two (docs/formats.md §7.3).
inline uint8_t CeilE8m0(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (bits <= 0x00400000u) return 0;
  const uint32_t code = (bits >> 23) + ((bits & 0x7FFFFFu) != 0 ? 1 : 0);
  return static_cast<uint8_t>(code < 0xFEu ? code : 0xFEu);
}

/// E2M1 (fp4): the low four bits, bit 3 is the sign.
inline float DecodeE2m1(uint8_t code) {
  constexpr float kValues[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  const float value = kValues[code & 7u];
  return (code & 8u) != 0 ? -value : value;
}

/// Beyond ±6 saturates. Ties go to the even mantissa: 0.25, 1.25, 2.5, 5 down; 0.75, 1.75, 3.5 up.
inline uint8_t EncodeE2m1(float value) {
  const float a = std::fabs(value);
  const int code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                   (a >= 3.5f) + (a > 5.0f);
  return static_cast<uint8_t>(code | (std::signbit(value) ? 8 : 0));
}

/// IEEE binary16.
inline float DecodeF16(uint16_t code) {
  const uint32_t sign = uint32_t{code & 0x8000u} << 16;
  const uint32_t exponent = (code >> 10) & 31u;
  const uint32_t mantissa = code & 0x3FFu;
  uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(mantissa) * 0x1p-24f);
  if (exponent != 0) bits = (exponent + 112) << 23 | mantissa << 13;
  if (exponent == 31) bits = 0x7F800000u | mantissa << 13;
  return std::bit_cast<float>(sign | bits);
}

/// 65520 and above become infinity, NaN a quiet NaN.
inline uint16_t EncodeF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const uint32_t sign = bits >> 16 & 0x8000u;
  uint32_t code = 0;
  if (magnitude > 0x7F800000u) {
    code = 0x7E00u;
  } else if (magnitude >= std::bit_cast<uint32_t>(65520.0f)) {
    code = 0x7C00u;
  } else if (magnitude < std::bit_cast<uint32_t>(0x1p-14f)) {
    // One unit in the last place of 1/2 is the smallest subnormal, 2^-24.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    code = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f);
  } else {
    code = ((magnitude + 0xFFFu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10);
  }
  return static_cast<uint16_t>(sign | code);
}

}  // namespace expertmesh::model
