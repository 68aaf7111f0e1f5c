// The Linear in f32, written once over the sixteen-lane type F16: chains of multiply-adds in
// registers. Included after a file that defines F16 and the block sizes, in an unnamed namespace as
// kernel_bodies.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/kernel_table.h"

namespace expertmesh::model {
namespace {

// Inputs [begin, begin + count) of some panels. Where it is not the first part, the chains go on
// with what stands in y.
template <class W>
struct PanelPart {
  const W* weights;  // [count][16] of each panel
  size_t apart;      // elements from one panel to the next
  size_t begin;
  size_t count;
};

// That a panel has, which begins at `output`.
inline size_t OutputsFrom(size_t output, size_t outputs) {
  return outputs - output < kPanelOutputs ? outputs - output : kPanelOutputs;
}

inline F16 LoadOutputs(const float* y, size_t width) {
  if (width == kPanelOutputs) return Load(y);
  float lanes[kPanelOutputs] = {};
  for (size_t i = 0; i < width; ++i) lanes[i] = y[i];
  return Load(lanes);
}

inline void StoreOutputs(F16 v, float* y, size_t width) {
  if (width == kPanelOutputs) return Store(y, v);
  float lanes[kPanelOutputs];
  Store(lanes, v);
  for (size_t i = 0; i < width; ++i) y[i] = lanes[i];
}

// MR rows × NP panels: one chain per output in ascending k.
template <int MR, int NP, class W>
inline void LinearBlock(const LinearTask& t, const PanelPart<W>& part, size_t first_panel,
                        size_t row) {
  const float* x = t.x + row * t.x_stride + part.begin;
  float* const y = t.y + row * t.y_stride + first_panel * kPanelOutputs;
  const auto width_of = [&](int p) {
    return OutputsFrom((first_panel + static_cast<size_t>(p)) * kPanelOutputs, t.outputs);
  };
  F16 acc[MR][NP];
  for (int m = 0; m < MR; ++m) {
    for (int p = 0; p < NP; ++p) {
      acc[m][p] = part.begin == 0
                      ? Zero()
                      : LoadOutputs(y + m * t.y_stride + p * kPanelOutputs, width_of(p));
    }
  }
  for (size_t k = 0; k < part.count; ++k) {
    F16 w[NP];
    for (int p = 0; p < NP; ++p) w[p] = Load(part.weights + p * part.apart + k * kPanelOutputs);
    for (int m = 0; m < MR; ++m) {
      const F16 b = Broadcast(x[m * t.x_stride + k]);
      for (int p = 0; p < NP; ++p) acc[m][p] = Fma(w[p], b, acc[m][p]);
    }
  }
  for (int p = 0; p < NP; ++p) {
    for (int m = 0; m < MR; ++m) {
      StoreOutputs(acc[m][p], y + m * t.y_stride + p * kPanelOutputs, width_of(p));
    }
  }
}

template <int NP, int MR, class W>
inline void LinearTail(const LinearTask& t, const PanelPart<W>& part, size_t panel, size_t row) {
  if constexpr (MR > 0) {
    if (t.rows - row == MR) {
      LinearBlock<MR, NP>(t, part, panel, row);
    } else {
      LinearTail<NP, MR - 1>(t, part, panel, row);
    }
  }
}

// All rows of NP panels; the panels stay in cache while the rows pass.
template <int NP, class W>
inline void LinearPanels(const LinearTask& t, const PanelPart<W>& part, size_t panel) {
  size_t row = 0;
  for (; t.rows - row >= size_t{kRowBlock}; row += kRowBlock) {
    LinearBlock<kRowBlock, NP>(t, part, panel, row);
  }
  LinearTail<NP, kRowBlock - 1>(t, part, panel, row);
}

constexpr int kRowPanels = 4;  // of one row: enough chains to hide the latency of a multiply-add

template <class W>
inline void LinearOf(const LinearTask& t, size_t begin, size_t end) {
  const size_t apart = t.inputs * kPanelOutputs;
  const auto part = [&](size_t panel) {
    return PanelPart<W>{reinterpret_cast<const W*>(t.panels) + panel * apart, apart, 0, t.inputs};
  };
  size_t panel = begin;
  if (t.rows == 1) {
    for (; end - panel >= size_t{kRowPanels}; panel += kRowPanels) {
      LinearBlock<1, kRowPanels>(t, part(panel), panel, 0);
    }
  }
  for (; end - panel >= size_t{kPanelBlock}; panel += kPanelBlock) {
    LinearPanels<kPanelBlock>(t, part(panel), panel);
  }
  for (; panel < end; ++panel) LinearPanels<1>(t, part(panel), panel);
}

}  // namespace
}  // namespace expertmesh::model
