// fp8 weights in plain C++; after simd_scalar.h. Included by baseline.cc only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/bf16.h"
#include "model/kernels/fp8_layout.h"

namespace expertmesh::model {
namespace {

class Fp8Widener {
 public:
  void SetScale(float scale) { scale_ = scale; }
  // Weights [4][16] of a quad.
  void Widen(const std::byte* codes, F16* weights) const {
    for (size_t k = 0; k < kFp8Quad; ++k) {
      for (size_t o = 0; o < 16; ++o) {
        const auto code = static_cast<uint32_t>(codes[Fp8CodeAt(k, o)]);
        const uint32_t bits = (code & 0x80u) << 24 | (code & 0x7Fu) << 20;
        weights[k].v[o] = RoundBf16(__builtin_bit_cast(float, bits) * scale_);
      }
    }
  }

 private:
  float scale_ = 0;
};

}  // namespace
}  // namespace expertmesh::model
