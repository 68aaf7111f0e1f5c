// Sixteen f32 lanes in plain C++; fmaf is one rounding on every machine. Included by baseline.cc
// only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/bf16.h"

namespace expertmesh::model {
namespace {

constexpr int kRowBlock = 1;
constexpr int kPanelBlock = 1;
constexpr int kChainBlock = 1;  // sums that attention keeps in registers
constexpr int kPairBlock = 1;   // the same for two sets of lanes

struct F16 {
  float v[16];
};
inline F16 Zero() { return {}; }
inline F16 Load(const float* p) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = p[i];
  return r;
}
inline F16 Load(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = WidenBf16(p[i]);
  return r;
}
// Numbers rounded to the nearest bf16, ties to even; none is a NaN.
inline F16 RoundLanesBf16(const F16& v) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = RoundBf16(v.v[i]);
  return r;
}
inline void Store(float* p, const F16& v) {
  for (int i = 0; i < 16; ++i) p[i] = v.v[i];
}
inline F16 Broadcast(float v) {
  F16 r;
  for (float& lane : r.v) lane = v;
  return r;
}
inline F16 Mul(const F16& a, const F16& b) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] * b.v[i];
  return r;
}
inline F16 Fma(const F16& a, const F16& b, const F16& c) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return r;
}

// Four by four do.
constexpr bool kTransposesSixteen = false;
inline void TransposeSixteen(const float*, size_t, float*, size_t) {}
inline void TransposeSixteenBf16(const uint16_t*, size_t, const uint16_t*, float*, size_t) {}

}  // namespace
}  // namespace expertmesh::model
