// The kernels, written once over a sixteen-lane type F16. Included by one file per instruction set
// after the file that defines F16, the block sizes and the lane operations. Everything is in an
// unnamed namespace, so no copy is shared between instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/bf16.h"
#include "model/kernels/int8_layout.h"
#include "model/kernels/kernel_table.h"
#include "model/kernels/math.h"

namespace expertmesh::model {
namespace {

// The fixed tree over sixteen partial results.
inline float TreeOf16(const float* partial) {
  float a[8];
  for (int i = 0; i < 8; ++i) a[i] = partial[i] + partial[i + 8];
  for (int i = 0; i < 4; ++i) a[i] = a[i] + a[i + 4];
  return (a[0] + a[2]) + (a[1] + a[3]);
}

// ---- Linear
// -------------------------------------------------------------------------------------------

// MR rows × NP panels: one chain per output in ascending k.
template <int MR, int NP, class W>
inline void LinearBlock(const LinearTask& t, const W* panels, size_t first_panel, const float* x,
                        float* y) {
  F16 acc[MR][NP];
  for (int m = 0; m < MR; ++m) {
    for (int p = 0; p < NP; ++p) acc[m][p] = Zero();
  }
  const size_t panel_size = t.inputs * kPanelOutputs;
  for (size_t k = 0; k < t.inputs; ++k) {
    F16 w[NP];
    for (int p = 0; p < NP; ++p) w[p] = Load(panels + p * panel_size + k * kPanelOutputs);
    for (int m = 0; m < MR; ++m) {
      const F16 b = Broadcast(x[m * t.x_stride + k]);
      for (int p = 0; p < NP; ++p) acc[m][p] = Fma(w[p], b, acc[m][p]);
    }
  }
  for (int p = 0; p < NP; ++p) {
    const size_t output = (first_panel + p) * kPanelOutputs;
    const size_t width = t.outputs - output < kPanelOutputs ? t.outputs - output : kPanelOutputs;
    for (int m = 0; m < MR; ++m) {
      float* out = y + m * t.y_stride + output;
      if (width == kPanelOutputs) {
        Store(out, acc[m][p]);
      } else {
        float lanes[kPanelOutputs];
        Store(lanes, acc[m][p]);
        for (size_t i = 0; i < width; ++i) out[i] = lanes[i];
      }
    }
  }
}

template <int NP, int MR, class W>
inline void LinearTail(const LinearTask& t, const W* panels, size_t panel, size_t row) {
  if constexpr (MR > 0) {
    if (t.rows - row == MR) {
      LinearBlock<MR, NP>(t, panels, panel, t.x + row * t.x_stride, t.y + row * t.y_stride);
    } else {
      LinearTail<NP, MR - 1>(t, panels, panel, row);
    }
  }
}

// All rows of NP panels; the panels stay in cache while the rows pass.
template <int NP, class W>
inline void LinearPanels(const LinearTask& t, size_t panel) {
  const W* panels = reinterpret_cast<const W*>(t.panels) + panel * t.inputs * kPanelOutputs;
  size_t row = 0;
  for (; t.rows - row >= size_t{kRowBlock}; row += kRowBlock) {
    LinearBlock<kRowBlock, NP>(t, panels, panel, t.x + row * t.x_stride, t.y + row * t.y_stride);
  }
  LinearTail<NP, kRowBlock - 1>(t, panels, panel, row);
}

template <class W>
inline void LinearOf(const LinearTask& t, size_t begin, size_t end) {
  size_t panel = begin;
  if (t.rows == 1) {  // enough independent chains to hide the latency of the multiply-add
    for (; end - panel >= 4; panel += 4) {
      const W* panels = reinterpret_cast<const W*>(t.panels) + panel * t.inputs * kPanelOutputs;
      LinearBlock<1, 4>(t, panels, panel, t.x, t.y);
    }
  }
  for (; end - panel >= size_t{kPanelBlock}; panel += kPanelBlock)
    LinearPanels<kPanelBlock, W>(t, panel);
  for (; panel < end; ++panel) LinearPanels<1, W>(t, panel);
}

void Linear(const LinearTask& task, size_t begin, size_t end) {
  if (task.dtype == Dtype::kBf16) {
    LinearOf<uint16_t>(task, begin, end);
  } else {
    LinearOf<float>(task, begin, end);
  }
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

// ---- Attention
// ------------------------------------------------------------------------------------------

using F4 = float __attribute__((vector_size(16)));

// Four keys × four dimensions, in registers.
inline void TransposeFour(const float* rows, size_t width, float* keys) {
  F4 in[4];
  for (int i = 0; i < 4; ++i) __builtin_memcpy(&in[i], rows + i * width, sizeof(F4));
  const F4 low01 = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
  const F4 high01 = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
  const F4 low23 = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
  const F4 high23 = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
  const F4 out[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                     __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                     __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                     __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) __builtin_memcpy(keys + i * kTileKeys, &out[i], sizeof(F4));
}

void TransposeTile(const float* rows, size_t width, size_t count, float* keys) {
  const size_t keys4 = count / 4 * 4;
  const size_t width4 = width / 4 * 4;
  for (size_t s = 0; s < keys4; s += 4) {
    for (size_t d = 0; d < width4; d += 4) {
      TransposeFour(rows + s * width + d, width, keys + d * kTileKeys + s);
    }
    for (size_t d = width4; d < width; ++d) {
      for (size_t i = s; i < s + 4; ++i) keys[d * kTileKeys + i] = rows[i * width + d];
    }
  }
  for (size_t s = keys4; s < count; ++s) {
    for (size_t d = 0; d < width; ++d) keys[d * kTileKeys + s] = rows[s * width + d];
  }
}

// scores[h][s] = q_h · key_s as one chain over the width.
template <int HB>
inline void Scores(const AttendTask& t, size_t head, float (*scores)[kTileKeys]) {
  F16 acc[HB][4];
  for (int h = 0; h < HB; ++h) {
    for (int v = 0; v < 4; ++v) acc[h][v] = Zero();
  }
  const float* q = t.queries + head * t.width;
  for (size_t d = 0; d < t.width; ++d) {
    F16 key[4];
    for (int v = 0; v < 4; ++v) key[v] = Load(t.keys + d * kTileKeys + v * 16);
    for (int h = 0; h < HB; ++h) {
      const F16 b = Broadcast(q[h * t.width + d]);
      for (int v = 0; v < 4; ++v) acc[h][v] = Fma(key[v], b, acc[h][v]);
    }
  }
  for (int h = 0; h < HB; ++h) {
    for (int v = 0; v < 4; ++v) Store(scores[h] + v * 16, acc[h][v]);
  }
}

// Turns one head's scores into weights of the running softmax; returns the factor for what was
// summed.
inline float SoftmaxStep(float scale, size_t valid, float* scores, float* maximum, float* sum) {
  for (size_t s = 0; s < kTileKeys; ++s) scores[s] = scale * scores[s];
  for (size_t s = valid; s < kTileKeys; ++s) scores[s] = -__builtin_inff();
  float m = *maximum;
  for (size_t s = 0; s < valid; ++s) m = scores[s] > m ? scores[s] : m;
  const float alpha = Exp(*maximum - m);
  float partial[16] = {};
  for (size_t s = 0; s < kTileKeys; s += 16) {
    for (size_t j = 0; j < 16; ++j) {
      scores[s + j] = Exp(scores[s + j] - m);
      partial[j] = partial[j] + scores[s + j];
    }
  }
  *maximum = m;
  *sum = *sum * alpha + TreeOf16(partial);
  return alpha;
}

// context_h = context_h · alpha_h + Σ_s p_hs · value_s, keys in ascending order.
template <int HB>
inline void Accumulate(const AttendTask& t, size_t head, const float (*p)[kTileKeys],
                       const float* alpha) {
  float* context = t.context + head * t.rank;
  size_t r = 0;
  for (; t.rank - r >= 64; r += 64) {
    F16 acc[HB][4];
    for (int h = 0; h < HB; ++h) {
      for (int v = 0; v < 4; ++v) {
        acc[h][v] = Mul(Load(context + h * t.rank + r + v * 16), Broadcast(alpha[h]));
      }
    }
    for (size_t s = 0; s < t.valid; ++s) {
      F16 value[4];
      for (int v = 0; v < 4; ++v) value[v] = Load(t.values + s * t.value_stride + r + v * 16);
      for (int h = 0; h < HB; ++h) {
        const F16 weight = Broadcast(p[h][s]);
        for (int v = 0; v < 4; ++v) acc[h][v] = Fma(weight, value[v], acc[h][v]);
      }
    }
    for (int h = 0; h < HB; ++h) {
      for (int v = 0; v < 4; ++v) Store(context + h * t.rank + r + v * 16, acc[h][v]);
    }
  }
  for (; t.rank - r >= 16; r += 16) {
    F16 acc[HB];
    for (int h = 0; h < HB; ++h) acc[h] = Mul(Load(context + h * t.rank + r), Broadcast(alpha[h]));
    for (size_t s = 0; s < t.valid; ++s) {
      const F16 value = Load(t.values + s * t.value_stride + r);
      for (int h = 0; h < HB; ++h) acc[h] = Fma(Broadcast(p[h][s]), value, acc[h]);
    }
    for (int h = 0; h < HB; ++h) Store(context + h * t.rank + r, acc[h]);
  }
  for (; r < t.rank; ++r) {
    for (int h = 0; h < HB; ++h) {
      float acc = context[h * t.rank + r] * alpha[h];
      for (size_t s = 0; s < t.valid; ++s) {
        acc = __builtin_fmaf(p[h][s], t.values[s * t.value_stride + r], acc);
      }
      context[h * t.rank + r] = acc;
    }
  }
}

template <int HB>
inline void AttendHeads(const AttendTask& t, size_t head) {
  alignas(64) float scores[HB][kTileKeys];
  float alpha[HB];
  Scores<HB>(t, head, scores);
  for (int h = 0; h < HB; ++h) {
    alpha[h] = SoftmaxStep(t.scale, t.valid, scores[h], t.maxima + head + h, t.sums + head + h);
  }
  Accumulate<HB>(t, head, scores, alpha);
}

void Attend(const AttendTask& task) {
  size_t head = 0;
  for (; task.heads - head >= size_t{kHeadBlock}; head += kHeadBlock)
    AttendHeads<kHeadBlock>(task, head);
  for (; head < task.heads; ++head) AttendHeads<1>(task, head);
}

// ---- Indexer
// ---------------------------------------------------------------------------------------------

template <int HB>
inline void IndexHeads(const IndexTask& t, size_t head, float* sums) {
  alignas(64) float dots[HB][kTileKeys];
  const AttendTask products{.keys = t.keys, .width = t.width, .queries = t.queries};
  Scores<HB>(products, head, dots);
  for (int h = 0; h < HB; ++h) {
    const float weight = t.weights[head + h];
    for (size_t s = 0; s < kTileKeys; ++s) {
      const float positive = dots[h][s] < 0.0f ? 0.0f : dots[h][s];  // keeps NaN
      sums[s] = sums[s] + weight * positive;
    }
  }
}

void IndexScores(const IndexTask& task) {
  alignas(64) float sums[kTileKeys] = {};
  size_t head = 0;
  for (; task.heads - head >= size_t{kHeadBlock}; head += kHeadBlock) {
    IndexHeads<kHeadBlock>(task, head, sums);
  }
  for (; head < task.heads; ++head) IndexHeads<1>(task, head, sums);
  for (size_t s = 0; s < kTileKeys; ++s) task.scores[s] = task.factor * sums[s] + 0.0f;
}

constexpr KernelTable MakeTable(std::string_view isa, decltype(KernelTable::linear_int8) int8) {
  return {isa,           Linear,      int8,          QuantiseRow, RmsNorm,
          SiluMul,       RoundToBf16, WidenFromBf16, AddRows,     ScaleRow,
          TransposeTile, Attend,      IndexScores,   Dot,         AddScaled};
}

}  // namespace
}  // namespace expertmesh::model
