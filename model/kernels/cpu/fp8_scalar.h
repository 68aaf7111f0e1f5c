// fp8 codes in plain C++; after simd_scalar.h. Included by baseline.cc only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/fp8_layout.h"

namespace expertmesh::model {
namespace {

// Values [4][16] of a quad, times 2^-120: of a code the sign and what lies below it, twenty bits
// higher.
inline void LoadFp8Quad(const std::byte* codes, F16* values) {
  for (size_t k = 0; k < kFp8Quad; ++k) {
    for (size_t o = 0; o < 16; ++o) {
      const auto code = static_cast<uint32_t>(codes[Fp8CodeAt(k, o)]);
      const uint32_t bits = (code & 0x80u) << 24 | (code & 0x7Fu) << 20;
      values[k].v[o] = __builtin_bit_cast(float, bits);
    }
  }
}

}  // namespace
}  // namespace expertmesh::model
