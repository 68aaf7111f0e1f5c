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
template <class Real>
inline Real TreeOf16(const Real* partial) {
  Real a[8];
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
  size_t s = 0;
  if (kTransposesSixteen) {
    for (; count - s >= 16; s += 16) {
      size_t d = 0;
      for (; width - d >= 16; d += 16) {
        TransposeSixteen(rows + s * width + d, width, keys + d * kTileKeys + s, kTileKeys);
      }
      for (; d < width; ++d) {
        for (size_t i = s; i < s + 16; ++i) keys[d * kTileKeys + i] = rows[i * width + d];
      }
    }
  }
  const size_t width4 = width / 4 * 4;
  for (; count - s >= 4; s += 4) {
    for (size_t d = 0; d < width4; d += 4) {
      TransposeFour(rows + s * width + d, width, keys + d * kTileKeys + s);
    }
    for (size_t d = width4; d < width; ++d) {
      for (size_t i = s; i < s + 4; ++i) keys[d * kTileKeys + i] = rows[i * width + d];
    }
  }
  for (; s < count; ++s) {
    for (size_t d = 0; d < width; ++d) keys[d * kTileKeys + s] = rows[s * width + d];
  }
}

// Heads that pass one part of a tile while the first-level cache holds it: 64 dims of the keys, or
// 64 ranks of the values, are 16 KB.
constexpr size_t kHeadsAtOnce = 16;
constexpr size_t kPartSize = 64;

// scores[h][s] goes on with q_h · key_s over dims [begin, end): one chain over the width.
template <int HB>
inline void ScoresPart(const AttendTask& t, size_t head, size_t begin, size_t end,
                       float (*scores)[kTileKeys]) {
  F16 acc[HB][4];
  for (int h = 0; h < HB; ++h) {
    for (int v = 0; v < 4; ++v) acc[h][v] = Load(scores[h] + v * 16);
  }
  const float* q = t.queries + head * t.width;
  for (size_t d = begin; d < end; ++d) {
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

// Scores of `count` heads from `first` on, at most kHeadsAtOnce.
inline void Scores(const AttendTask& t, size_t first, size_t count, float (*scores)[kTileKeys]) {
  __builtin_memset(scores, 0, count * sizeof(*scores));
  for (size_t d = 0; d < t.width; d += kPartSize) {
    const size_t end = t.width - d < kPartSize ? t.width : d + kPartSize;
    size_t h = 0;
    for (; count - h >= size_t{kHeadBlock}; h += kHeadBlock) {
      ScoresPart<kHeadBlock>(t, first + h, d, end, scores + h);
    }
    for (; h < count; ++h) ScoresPart<1>(t, first + h, d, end, scores + h);
  }
}

// Turns one head's scores into weights of the running softmax; returns the factor for what was
// summed.
inline float SoftmaxStep(float scale, size_t valid, float* scores, float* maximum, float* sum) {
  for (size_t s = 0; s < kTileKeys; ++s) scores[s] = scale * scores[s];
  for (size_t s = valid; s < kTileKeys; ++s) scores[s] = -__builtin_inff();
  float largest[16];  // of keys sixteen apart; a NaN is never larger
  for (size_t j = 0; j < 16; ++j) largest[j] = *maximum;
  for (size_t s = 0; s < kTileKeys; s += 16) {
    for (size_t j = 0; j < 16; ++j) {
      largest[j] = scores[s + j] > largest[j] ? scores[s + j] : largest[j];
    }
  }
  float m = *maximum;
  for (size_t j = 0; j < 16; ++j) m = largest[j] > m ? largest[j] : m;
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

// context_h = context_h · alpha_h + Σ_s p_hs · value_s for V · 16 ranks from r on, keys in
// ascending order.
template <int HB, int V>
inline void AccumulatePart(const AttendTask& t, size_t head, size_t r, const float (*p)[kTileKeys],
                           const float* alpha) {
  float* context = t.context + head * t.rank + r;
  F16 acc[HB][V];
  for (int h = 0; h < HB; ++h) {
    for (int v = 0; v < V; ++v) {
      acc[h][v] = Mul(Load(context + h * t.rank + v * 16), Broadcast(alpha[h]));
    }
  }
  for (size_t s = 0; s < t.valid; ++s) {
    F16 value[V];
    for (int v = 0; v < V; ++v) value[v] = Load(t.values + s * t.value_stride + r + v * 16);
    for (int h = 0; h < HB; ++h) {
      const F16 weight = Broadcast(p[h][s]);
      for (int v = 0; v < V; ++v) acc[h][v] = Fma(weight, value[v], acc[h][v]);
    }
  }
  for (int h = 0; h < HB; ++h) {
    for (int v = 0; v < V; ++v) Store(context + h * t.rank + v * 16, acc[h][v]);
  }
}

template <int V>
inline void AccumulateHeads(const AttendTask& t, size_t first, size_t count, size_t r,
                            const float (*p)[kTileKeys], const float* alpha) {
  size_t h = 0;
  for (; count - h >= size_t{kHeadBlock}; h += kHeadBlock) {
    AccumulatePart<kHeadBlock, V>(t, first + h, r, p + h, alpha + h);
  }
  for (; h < count; ++h) AccumulatePart<1, V>(t, first + h, r, p + h, alpha + h);
}

inline void Accumulate(const AttendTask& t, size_t first, size_t count, const float (*p)[kTileKeys],
                       const float* alpha) {
  size_t r = 0;
  for (; t.rank - r >= kPartSize; r += kPartSize) {
    AccumulateHeads<4>(t, first, count, r, p, alpha);
  }
  for (; t.rank - r >= 16; r += 16) AccumulateHeads<1>(t, first, count, r, p, alpha);
  for (; r < t.rank; ++r) {
    for (size_t h = 0; h < count; ++h) {
      float* context = t.context + (first + h) * t.rank + r;
      float acc = *context * alpha[h];
      for (size_t s = 0; s < t.valid; ++s) {
        acc = __builtin_fmaf(p[h][s], t.values[s * t.value_stride + r], acc);
      }
      *context = acc;
    }
  }
}

void Attend(const AttendTask& task) {
  alignas(64) float scores[kHeadsAtOnce][kTileKeys];
  float alpha[kHeadsAtOnce];
  for (size_t first = 0; first < task.heads; first += kHeadsAtOnce) {
    const size_t left = task.heads - first;
    const size_t count = left < kHeadsAtOnce ? left : kHeadsAtOnce;
    Scores(task, first, count, scores);
    for (size_t h = 0; h < count; ++h) {
      alpha[h] = SoftmaxStep(task.scale, task.valid, scores[h], task.maxima + first + h,
                             task.sums + first + h);
    }
    Accumulate(task, first, count, scores, alpha);
  }
}

// ---- Indexer
// ---------------------------------------------------------------------------------------------

void IndexScores(const IndexTask& task) {
  const AttendTask products{.keys = task.keys, .width = task.width, .queries = task.queries};
  alignas(64) float sums[kTileKeys] = {};
  alignas(64) float dots[kHeadsAtOnce][kTileKeys];
  for (size_t first = 0; first < task.heads; first += kHeadsAtOnce) {
    const size_t left = task.heads - first;
    const size_t count = left < kHeadsAtOnce ? left : kHeadsAtOnce;
    Scores(products, first, count, dots);
    for (size_t h = 0; h < count; ++h) {
      const float weight = task.weights[first + h];
      for (size_t s = 0; s < kTileKeys; ++s) {
        const float positive = dots[h][s] < 0.0f ? 0.0f : dots[h][s];  // keeps NaN
        sums[s] = sums[s] + weight * positive;
      }
    }
  }
  for (size_t s = 0; s < kTileKeys; ++s) task.scores[s] = task.factor * sums[s] + 0.0f;
}

constexpr KernelTable MakeTable(std::string_view isa, decltype(KernelTable::linear_int8) int8) {
  return {isa,           Linear,      int8,          QuantiseRow, RmsNorm,
          SiluMul,       RoundToBf16, WidenFromBf16, AddRows,     ScaleRow,
          TransposeTile, Attend,      IndexScores,   Dot,         AddScaled,
          Largest,       ExpWeights};
}

}  // namespace
}  // namespace expertmesh::model
