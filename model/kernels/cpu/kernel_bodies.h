// The kernels, written once over a sixteen-lane type F16. Included by one file per instruction set
// after the file that defines F16, the block sizes and the lane operations. Everything is in an
// unnamed namespace, so no copy is shared between instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/bf16.h"
#include "model/kernels/cpu/attend_bodies.h"
#include "model/kernels/cpu/index_bodies.h"
#include "model/kernels/cpu/linear_bodies.h"
#include "model/kernels/cpu/transpose_bodies.h"
#include "model/kernels/int8_layout.h"
#include "model/kernels/kernel_table.h"
#include "model/kernels/math.h"

namespace expertmesh::model {
namespace {

// The fixed tree over sixteen partial results.
template <class Real>
inline Real TreeOf16(const Real* partial) {
  Real a[8];
  for (int i = 0; i < 8; ++i) a[i] = partial[i] + partial[i + 8];
  for (int i = 0; i < 4; ++i) a[i] = a[i] + a[i + 4];
  return (a[0] + a[2]) + (a[1] + a[3]);
}

// ---- Linear
// -------------------------------------------------------------------------------------------

void Linear(const LinearTask& task, size_t begin, size_t end) {
  if (task.dtype == Dtype::kBf16) return LinearOf<uint16_t>(task, begin, end);
  LinearOf<float>(task, begin, end);
}

// ---- Element-wise and norms
// ----------------------------------------------------------------------------- ivdep: an output
// may be one of the inputs, but element i depends on elements i only.

void RmsNorm(const float* x, const float* weight, float eps, size_t n, float* y) {
  float partial[16] = {};
  for (size_t i = 0; i < n; i += 16) {
    const size_t count = n - i < 16 ? n - i : 16;
    for (size_t j = 0; j < count; ++j) partial[j] = __builtin_fmaf(x[i + j], x[i + j], partial[j]);
  }
  const float mean = TreeOf16(partial) / static_cast<float>(n);
  const float r = 1.0f / __builtin_sqrtf(mean + eps);
  for (size_t i = 0; i < n; ++i) y[i] = weight[i] * (x[i] * r);
}

void SiluMul(const float* gate, const float* up, size_t n, float* out) {
#pragma GCC ivdep
  for (size_t i = 0; i < n; ++i) out[i] = Silu(gate[i]) * up[i];
}

void RoundToBf16(const float* x, size_t n, float* out) {
#pragma GCC ivdep
  for (size_t i = 0; i < n; ++i) out[i] = RoundBf16(x[i]);
}

void WidenFromBf16(const uint16_t* x, size_t n, float* out) {
#pragma GCC ivdep
  for (size_t i = 0; i < n; ++i) out[i] = WidenBf16(x[i]);
}

void AddRows(const float* a, const float* b, size_t n, float* out) {
#pragma GCC ivdep
  for (size_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

void ScaleRow(float factor, const float* x, size_t n, float* out) {
#pragma GCC ivdep
  for (size_t i = 0; i < n; ++i) out[i] = factor * x[i];
}

void AddScaled(float factor, const float* x, size_t n, float* out) {
#pragma GCC ivdep
  for (size_t i = 0; i < n; ++i) out[i] = out[i] + factor * x[i];
}

// Integer steps over the bits, so that neither order nor vector width matters.
void QuantiseRow(const float* x, size_t n, std::byte* record) {
  constexpr float kMagic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  constexpr uint32_t kInfinity = 0x7F800000u;
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, x[i]) & 0x7FFFFFFFu;
    largest = magnitude > largest ? magnitude : largest;
  }
  const auto amax = __builtin_bit_cast(float, largest);
  const bool usable = largest < kInfinity && amax >= kInt8AmaxMin;
  float scale = usable ? amax / 127.0f : 0.0f;
  if (largest >= kInfinity) scale = __builtin_nanf("");
  auto* codes = reinterpret_cast<int8_t*>(record);
  const size_t groups = Int8Groups(n);
  __builtin_memset(record, 0, Int8StartsAt(n));
  if (usable) {
    const float inverse = 127.0f / amax;
    for (size_t i = 0; i < n; ++i) {
      codes[i] = static_cast<int8_t>(__builtin_bit_cast(uint32_t, x[i] * inverse + kMagic));
    }
  }
  for (size_t g = 0; g < groups; ++g) {
    int32_t sum = 0;
    for (size_t k = 0; k < kInt8Group; ++k) sum += codes[g * kInt8Group + k];
    sum *= -kInt8Offset;
    __builtin_memcpy(record + Int8StartsAt(n) + g * sizeof(sum), &sum, sizeof(sum));
  }
  __builtin_memcpy(record + Int8ScaleAt(n), &scale, sizeof(scale));
}

float Dot(const float* a, const float* b, size_t n) {
  float partial[16] = {};
  for (size_t i = 0; i < n; i += 16) {
    const size_t count = n - i < 16 ? n - i : 16;
    for (size_t j = 0; j < count; ++j) partial[j] = __builtin_fmaf(a[i + j], b[i + j], partial[j]);
  }
  return TreeOf16(partial);
}

// ---- Sampling
// ------------------------------------------------------------------------------------------

float Largest(const float* x, size_t n) {
  float partial[16];
  uint32_t nan[16] = {};
  for (size_t j = 0; j < 16; ++j) partial[j] = x[0];
  for (size_t i = 0; i < n; i += 16) {
    const size_t count = n - i < 16 ? n - i : 16;
    for (size_t j = 0; j < count; ++j) {
      partial[j] = x[i + j] > partial[j] ? x[i + j] : partial[j];
      nan[j] |= x[i + j] != x[i + j] ? 1u : 0u;
    }
  }
  float largest = partial[0];
  for (size_t j = 0; j < 16; ++j) {
    if (nan[j] != 0) return __builtin_nanf("");
    largest = partial[j] > largest ? partial[j] : largest;
  }
  return largest;
}

double ExpWeights(const float* x, float top, float temperature, size_t n, float* weights) {
  double partial[16] = {};
  const size_t whole = n / 16 * 16;
  for (size_t i = 0; i < whole; i += 16) {
    for (size_t j = 0; j < 16; ++j) weights[i + j] = Exp((x[i + j] - top) / temperature);
    for (size_t j = 0; j < 16; ++j) partial[j] += static_cast<double>(weights[i + j]);
  }
  for (size_t i = whole; i < n; ++i) {
    weights[i] = Exp((x[i] - top) / temperature);
    partial[i - whole] += static_cast<double>(weights[i]);
  }
  return TreeOf16(partial);
}

constexpr KernelTable MakeTable(std::string_view isa, decltype(KernelTable::linear_fp8) fp8,
                                decltype(KernelTable::linear_int8) int8) {
  return {isa,          Linear,        fp8,     int8,      QuantiseRow, RmsNorm,      SiluMul,
          RoundToBf16,  WidenFromBf16, AddRows, ScaleRow,  Transpose,   AttendScores, AttendWeights,
          AttendValues, IndexScores,   Dot,     AddScaled, Largest,     ExpWeights};
}

}  // namespace
}  // namespace expertmesh::model
