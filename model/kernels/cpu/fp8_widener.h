// Weights of fp8 codes, computed one by one. Included after a file that defines F16 and one that
// defines LoadFp8Quad; fp8_vbmi.h looks them up instead. In an unnamed namespace, as
// kernel_bodies.h.
#pragma once

#include <cstddef>

#include "model/kernels/fp8_layout.h"

namespace expertmesh::model {
namespace {

class Fp8Widener {
 public:
  void SetScale(float scale) { scale_ = Broadcast(scale); }
  // Weights [4][16] of a quad.
  void Widen(const std::byte* codes, F16* weights) const {
    LoadFp8Quad(codes, weights);
    for (size_t k = 0; k < kFp8Quad; ++k) weights[k] = RoundLanesBf16(Mul(weights[k], scale_));
  }

 private:
  F16 scale_ = Zero();
};

}  // namespace
}  // namespace expertmesh::model
