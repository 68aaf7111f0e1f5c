// The kernels of one instruction set. Every set gives the same bits; they differ in speed only
// (docs/architecture.md §4). One output element is one f32 chain of fused multiply-adds in
// ascending k; vector lanes run over outputs, never over k.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/profile.h"

namespace expertmesh::model {

inline constexpr size_t kPanelOutputs = 16;       // outputs of one packed panel
inline constexpr size_t kTileKeys = 64;           // keys of one attention tile
inline constexpr float kInt8AmaxMin = 0x1p-100f;  // rows below it would have no finite 1 / scale

/// y[row][o] = Σ_k w[o][k] · x[row][k] for the outputs of some panels.
struct LinearTask {
  const std::byte* panels = nullptr;  // [ceil(outputs/16)][inputs][16] of dtype, 64-aligned
  Dtype dtype = Dtype::kF32;
  size_t inputs = 0;
  size_t outputs = 0;
  const float* x = nullptr;  // [rows], x_stride floats apart
  size_t x_stride = 0;
  size_t rows = 0;
  float* y = nullptr;  // [rows], y_stride floats apart
  size_t y_stride = 0;
};

/// The same with int8 weights and rows (int8_layout.h).
struct Int8LinearTask {
  const std::byte* panels = nullptr;  // [ceil(outputs/16)][Int8PanelBytes], 64-aligned
  size_t inputs = 0;
  size_t outputs = 0;
  const std::byte* x = nullptr;  // [rows][Int8RowBytes], 64-aligned
  size_t rows = 0;
  float* y = nullptr;  // [rows], y_stride floats apart
  size_t y_stride = 0;
  const float* factors = nullptr;  // [rows]; if given, y = factor · y, rounded once more
};

/// One tile of the online softmax of one row, for some heads (docs/formats.md §1.3, absorbed form).
struct AttendTask {
  const float* keys = nullptr;    // [width][64], transposed tile; width = rank + rope dims
  const float* values = nullptr;  // [64], value_stride floats apart; first `rank` are used
  size_t value_stride = 0;
  size_t width = 0;
  size_t rank = 0;
  size_t valid = 0;  // keys of this tile that the row may see, 1..64
  float scale = 0;
  const float* queries = nullptr;  // [heads][width]
  size_t heads = 0;
  float* maxima = nullptr;   // [heads], −inf before the first tile
  float* sums = nullptr;     // [heads], 0 before the first tile
  float* context = nullptr;  // [heads][rank], 0 before the first tile; not yet divided by sums
};

/// Scores of one tile of index keys for one row (docs/formats.md §2.2):
/// scores[s] = factor · Σ_h weights[h] · relu(query_h · key_s), heads in ascending order, and −0
/// made +0. A NaN stays one.
struct IndexTask {
  const float* keys = nullptr;  // [width][64], transposed tile
  size_t width = 0;
  const float* queries = nullptr;  // [heads][width]
  const float* weights = nullptr;  // [heads]
  size_t heads = 0;
  float factor = 0;
  float* scores = nullptr;  // [64]; those behind the last key mean nothing
};

struct KernelTable {
  std::string_view isa;  // "avx512", "avx2", "baseline"
  void (*linear)(const LinearTask& task, size_t panel_begin, size_t panel_end);
  void (*linear_int8)(const Int8LinearTask& task, size_t panel_begin, size_t panel_end);
  /// record [Int8RowBytes(n)] = x, quantised: scale = amax / 127, codes = x · (127 / amax) to
  /// nearest even. A row below kInt8AmaxMin is all zeros; the scale of one that is not finite is
  /// NaN, and so is all that is computed from it.
  void (*quantise_row)(const float* x, size_t n, std::byte* record);
  /// y = weight · (x / sqrt(mean(x²) + eps)); 16 strided partial sums, then a fixed tree. y may be
  /// x.
  void (*rms_norm)(const float* x, const float* weight, float eps, size_t n, float* y);
  /// out = silu(gate) · up; out may be gate.
  void (*silu_mul)(const float* gate, const float* up, size_t n, float* out);
  /// out = x rounded to bf16; out may be x.
  void (*round_bf16)(const float* x, size_t n, float* out);
  /// out = the bf16 numbers in f32.
  void (*widen_bf16)(const uint16_t* x, size_t n, float* out);
  /// out = a + b; out may be a or b.
  void (*add)(const float* a, const float* b, size_t n, float* out);
  /// out = factor · x; out may be x.
  void (*scale)(float factor, const float* x, size_t n, float* out);
  /// keys [width][64] = the transpose of rows [64][width]; columns past `count` are left as they
  /// are.
  void (*transpose_tile)(const float* rows, size_t width, size_t count, float* keys);
  void (*attend)(const AttendTask& task);
  void (*index_scores)(const IndexTask& task);
  /// Σ a·b; 16 strided partial sums, then a fixed tree.
  float (*dot)(const float* a, const float* b, size_t n);
  /// out = out + factor · x, the product rounded before the sum.
  void (*add_scaled)(float factor, const float* x, size_t n, float* out);
  /// The largest of n ≥ 1 numbers; NaN if one of them is.
  float (*largest)(const float* x, size_t n);
  /// weights = e^((x − top) / temperature); returns their sum in float64: 16 strided partial sums,
  /// then a fixed tree.
  double (*exp_weights)(const float* x, float top, float temperature, size_t n, float* weights);
};

/// The table of that name; "auto" is the fastest this CPU runs. kInvalidArgument listing what it
/// runs.
absl::StatusOr<const KernelTable*> KernelsFor(std::string_view isa);
/// Every table that this CPU can run, fastest first; never empty.
std::vector<const KernelTable*> AvailableKernels();
/// The first of them, for what is outside a model's own choice: the bits are the same.
const KernelTable& FastestKernels();

}  // namespace expertmesh::model
