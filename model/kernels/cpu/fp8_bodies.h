// The Linear over fp8 panels, written once. Included after linear_bodies.h and a file that defines
// Fp8Widener, which turns codes into weights. In an unnamed namespace, as kernel_bodies.h.
#pragma once

#include <cstddef>

#include "model/kernels/fp8_layout.h"
#include "model/kernels/kernel_table.h"

namespace expertmesh::model {
namespace {

// One panel, read from its first input on.
class Fp8Panel {
 public:
  Fp8Panel() = default;
  Fp8Panel(const std::byte* panel, size_t inputs)
      : scales_(reinterpret_cast<const float*>(panel)), codes_(panel + Fp8ScaleBytes(inputs)) {}
  // Weights [4][16] of the inputs from `k` on, a multiple of 4; the quads come in order.
  inline void Widen(size_t k, F16* weights) {
    if (k % kFp8Group == 0) widener_.SetScale(scales_[k / kFp8Group]);
    widener_.Widen(codes_ + k * kPanelOutputs, weights);
  }

 private:
  const float* scales_ = nullptr;
  const std::byte* codes_ = nullptr;
  Fp8Widener widener_;
};

// MR rows × NP panels without a detour over memory: for no more rows than one block has.
template <int MR, int NP>
inline void Fp8Block(const LinearTask& t, size_t first_panel) {
  Fp8Panel panels[NP];
  F16 acc[MR][NP];
  for (int p = 0; p < NP; ++p) {
    const size_t panel = first_panel + static_cast<size_t>(p);
    panels[p] = Fp8Panel(t.panels + panel * Fp8PanelBytes(t.inputs), t.inputs);
    for (int m = 0; m < MR; ++m) acc[m][p] = Zero();
  }
  const auto add = [&](size_t k, size_t count) __attribute__((always_inline)) {
    for (int p = 0; p < NP; ++p) {
      F16 w[kFp8Quad];
      panels[p].Widen(k, w);
      for (int m = 0; m < MR; ++m) {
        const float* x = t.x + m * t.x_stride + k;
        for (size_t i = 0; i < count; ++i) acc[m][p] = Fma(w[i], Broadcast(x[i]), acc[m][p]);
      }
    }
  };
  const size_t whole = t.inputs / kFp8Quad * kFp8Quad;
  for (size_t k = 0; k < whole; k += kFp8Quad) add(k, kFp8Quad);
  if (whole < t.inputs) add(whole, t.inputs - whole);
  for (int p = 0; p < NP; ++p) {
    const size_t output = (first_panel + static_cast<size_t>(p)) * kPanelOutputs;
    for (int m = 0; m < MR; ++m) {
      StoreOutputs(acc[m][p], t.y + m * t.y_stride + output, OutputsFrom(output, t.outputs));
    }
  }
}

template <int NP, int MR>
inline void Fp8FewRows(const LinearTask& t, size_t panel) {
  if constexpr (MR > 0) {
    if (t.rows == MR) return Fp8Block<MR, NP>(t, panel);
    Fp8FewRows<NP, MR - 1>(t, panel);
  }
}

constexpr size_t kFp8PartInputs = 2 * kFp8Group;  // widened at a time: stays in the first cache

// More rows: parts of NP panels are widened once for all of them.
template <int NP>
inline void Fp8ManyRows(const LinearTask& t, size_t first_panel) {
  alignas(64) float widened[NP][kFp8PartInputs * kPanelOutputs];
  Fp8Panel panels[NP];
  for (int p = 0; p < NP; ++p) {
    const size_t panel = first_panel + static_cast<size_t>(p);
    panels[p] = Fp8Panel(t.panels + panel * Fp8PanelBytes(t.inputs), t.inputs);
  }
  for (size_t k = 0; k < t.inputs; k += kFp8PartInputs) {
    const size_t count = t.inputs - k < kFp8PartInputs ? t.inputs - k : kFp8PartInputs;
    for (int p = 0; p < NP; ++p) {
      for (size_t i = 0; i < count; i += kFp8Quad) {
        F16 w[kFp8Quad];
        panels[p].Widen(k + i, w);
        for (size_t j = 0; j < kFp8Quad; ++j) Store(widened[p] + (i + j) * kPanelOutputs, w[j]);
      }
    }
    LinearPanels<NP>(t, PanelPart<float>{widened[0], kFp8PartInputs * kPanelOutputs, k, count},
                     first_panel);
  }
}

template <int NP>
inline void Fp8Panels(const LinearTask& t, size_t panel) {
  if (t.rows > size_t{kRowBlock}) return Fp8ManyRows<NP>(t, panel);
  Fp8FewRows<NP, kRowBlock>(t, panel);
}

void LinearFp8(const LinearTask& t, size_t begin, size_t end) {
  size_t panel = begin;
  if (t.rows == 1) {
    for (; end - panel >= size_t{kRowPanels}; panel += kRowPanels)
      Fp8Block<1, kRowPanels>(t, panel);
  }
  for (; end - panel >= size_t{kPanelBlock}; panel += kPanelBlock) Fp8Panels<kPanelBlock>(t, panel);
  for (; panel < end; ++panel) Fp8Panels<1>(t, panel);
}

}  // namespace
}  // namespace expertmesh::model
