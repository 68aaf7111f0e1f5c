// bfloat16: the upper half of a float32 (docs/formats.md §7.2). Widening is exact, narrowing rounds
// to nearest even and keeps NaN a NaN.
#pragma once

#include <cstdint>

#include "model/kernels/math.h"

namespace expertmesh::model {

EM_ALWAYS_INLINE float WidenBf16(uint16_t half) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(half) << 16);
}

EM_ALWAYS_INLINE uint16_t NarrowBf16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
}

EM_ALWAYS_INLINE float RoundBf16(float value) { return WidenBf16(NarrowBf16(value)); }

}  // namespace expertmesh::model
