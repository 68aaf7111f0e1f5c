// The int8 Linear, written once. Included after a file that defines F16, I16 (sixteen int32 lanes),
// Codes (a quad of inputs of sixteen outputs), Nibbles (two such quads in four bits), Quad (the
// same inputs of a row) and the operations between them. In an unnamed namespace, as
// kernel_bodies.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/cpu/linear_bodies.h"
#include "model/kernels/int8_layout.h"
#include "model/kernels/kernel_table.h"

namespace expertmesh::model {
namespace {

// The next panel, fetched while this one is in use: blocks of many rows compute too long for the
// hardware to run ahead on its own. Every block of rows fetches its share, `lines` a group.
struct Int8Ahead {
  const std::byte* next;
  size_t lines;
};
constexpr size_t kInt8AheadRows = 8;  // fewer rows leave it to the hardware
constexpr size_t kLineBytes = 64;

// MR rows of one panel of weights of kForm: one exact sum per group, one chain over the groups.
template <Dtype kForm, int MR>
inline void Int8Block(const Int8LinearTask& t, const std::byte* panel, size_t output,
                      const std::byte* x, size_t row, Int8Ahead ahead) {
  const size_t stride = Int8RowBytes(t.inputs);
  const std::byte* starts = x + Int8StartsAt(t.inputs);
  F16 acc[MR];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) acc[m] = Zero();
  const size_t groups = Int8Groups(t.inputs);
  for (size_t g = 0; g < groups; ++g) {
    const std::byte* block = panel + g / 2 * Int8BlockBytes(kForm);
    const std::byte* codes = block + 2 * kInt8ScaleBytes + g % 2 * Int8GroupBytes(kForm);
    for (size_t i = 0; i < ahead.lines; ++i) {
      __builtin_prefetch(ahead.next + (g * ahead.lines + i) * kLineBytes, 0, 2);
    }
    I16 dot[MR];
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      dot[m] = BroadcastInt(starts + static_cast<size_t>(m) * stride + g * sizeof(int32_t));
    }
    const auto add = [&](const auto& w, size_t q) {
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        dot[m] = DotAdd(dot[m], w,
                        LoadQuad(x + static_cast<size_t>(m) * stride + g * kInt8Group + q * 4));
      }
    };
    if constexpr (IsFourBit(kForm)) {
      const uint8_t* table = kForm == Dtype::kInt4 ? kInt4Codes : kFp4Codes;
#pragma GCC unroll 4
      for (size_t q = 0; q < kInt8Group / 4; q += 2) {
        const Nibbles pair = LoadNibbles(codes + q / 2 * kInt8QuadBytes);
        add(LowCodes(pair, table), q);
        add(HighCodes(pair, table), q + 1);
      }
    } else {
#pragma GCC unroll 8
      for (size_t q = 0; q < kInt8Group / 4; ++q) add(LoadCodes(codes + q * kInt8QuadBytes), q);
    }
    const std::byte* scale_bytes = block + g % 2 * kInt8ScaleBytes;
    const F16 scale = kForm == Dtype::kFp4 ? Load(reinterpret_cast<const uint16_t*>(scale_bytes))
                                           : LoadHalves(scale_bytes);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) acc[m] = Fma(ToF16(dot[m]), scale, acc[m]);
  }
  const std::byte* scales = x + Int8ScaleAt(t.inputs);
  const size_t width = OutputsFrom(output, t.outputs);
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) {
    const size_t r = row + static_cast<size_t>(m);
    float row_scale;
    __builtin_memcpy(&row_scale, scales + static_cast<size_t>(m) * stride, sizeof(row_scale));
    F16 result = Mul(acc[m], Broadcast(row_scale));
    if (t.factors != nullptr) result = Mul(Broadcast(t.factors[r]), result);
    StoreOutputs(result, t.y + r * t.y_stride + output, width);
  }
}

// Chooses the block of `rows` rows from `row` on, 1 … MR.
template <Dtype kForm, int MR>
inline void Int8Rows(const Int8LinearTask& t, const std::byte* panel, size_t output,
                     const std::byte* x, size_t row, size_t rows, Int8Ahead ahead) {
  if constexpr (MR > 1) {
    if (rows < MR) return Int8Rows<kForm, MR - 1>(t, panel, output, x, row, rows, ahead);
  }
  Int8Block<kForm, MR>(t, panel, output, x, row, ahead);
}

// One panel at a time, so that few rows read the weights as one stream; many rows are cut into
// equal blocks, for which the panel stays in cache.
template <Dtype kForm>
void LinearInt8Of(const Int8LinearTask& t, size_t begin, size_t end) {
  const size_t panel_bytes = Int8PanelBytes(kForm, t.inputs);
  const size_t row_bytes = Int8RowBytes(t.inputs);
  const size_t blocks = (t.rows + kInt8RowBlock - 1) / kInt8RowBlock;
  if (blocks == 0) return;
  const size_t shares = blocks * Int8Groups(t.inputs);
  const size_t share = (panel_bytes / kLineBytes + shares - 1) / shares;
  for (size_t p = begin; p < end; ++p) {
    const std::byte* panel = t.panels + p * panel_bytes;
    Int8Ahead ahead{panel + panel_bytes, t.rows < kInt8AheadRows ? 0 : share};
    size_t row = 0;
    for (size_t b = 0; b < blocks; ++b) {
      const size_t rows = (t.rows - row) / (blocks - b);
      Int8Rows<kForm, kInt8RowBlock>(t, panel, p * kPanelOutputs, t.x + row * row_bytes, row, rows,
                                     ahead);
      row += rows;
      ahead.next += Int8Groups(t.inputs) * ahead.lines * kLineBytes;
    }
  }
}

void LinearInt8(const Int8LinearTask& t, size_t begin, size_t end) {
  if (t.dtype == Dtype::kInt4) return LinearInt8Of<Dtype::kInt4>(t, begin, end);
  if (t.dtype == Dtype::kFp4) return LinearInt8Of<Dtype::kFp4>(t, begin, end);
  LinearInt8Of<Dtype::kInt8>(t, begin, end);
}

}  // namespace
}  // namespace expertmesh::model
