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
inline constexpr size_t kKeyLanes = 16;           // index keys that are scored together
inline constexpr size_t kHeadLanes = 16;          // heads that attend together
inline constexpr float kInt8AmaxMin = 0x1p-100f;  // rows below it would have no finite 1 / scale

/// y[row][o] = Σ_k w[o][k] · x[row][k] for the outputs of some panels.
struct LinearTask {
  const std::byte* panels = nullptr;  // [ceil(outputs/16)][inputs][16] of dtype, 64-aligned; or
                                      // those of fp8_layout.h
  Dtype dtype = Dtype::kF32;
  size_t inputs = 0;
  size_t outputs = 0;
  const float* x = nullptr;  // [rows], x_stride floats apart
  size_t x_stride = 0;
  size_t rows = 0;
  float* y = nullptr;  // [rows], y_stride floats apart
  size_t y_stride = 0;
};

/// The same with int8 rows and weights in int8, int4 or fp4 (int8_layout.h).
struct Int8LinearTask {
  const std::byte* panels = nullptr;  // [ceil(outputs/16)][Int8PanelBytes], 64-aligned
  size_t inputs = 0;
  size_t outputs = 0;
  const std::byte* x = nullptr;  // [rows][Int8RowBytes], 64-aligned
  size_t rows = 0;
  float* y = nullptr;  // [rows], y_stride floats apart
  size_t y_stride = 0;
  const float* factors = nullptr;  // [rows]; if given, y = factor · y, rounded once more
  Dtype dtype = Dtype::kInt8;      // of the weights
};

/// Cache entries that sixteen heads of one row attend to: some of one tile.
struct AttendEntries {
  const std::byte* const* entries = nullptr;  // [count] of [width]; anywhere
  Dtype dtype = Dtype::kF32;                  // f32 or bf16
  size_t count = 0;                           // 1 … 64
  size_t width = 0;                           // rank + rope dims
};

/// Scores of one page of index keys for some rows (docs/formats.md §2.2):
/// scores[s] = factor · Σ_h weights[h] · relu(query_h · key_s), heads in ascending order, and −0
/// made +0. A NaN stays one.
struct IndexTask {
  const std::byte* keys = nullptr;  // [count][width] of dtype
  Dtype dtype = Dtype::kF32;        // f32 or bf16
  size_t width = 0;
  size_t count = 0;                 // 1 … 64
  const std::byte* next = nullptr;  // [count][width], keys that will be wanted soon; or `keys`
  const float* queries = nullptr;   // [rows][heads][width]
  const float* weights = nullptr;   // [rows][heads]
  size_t rows = 0;
  size_t heads = 0;
  float factor = 0;
  float* scores = nullptr;  // [rows], score_stride floats apart; [count]
  size_t score_stride = 0;
  float* columns = nullptr;  // [width][16], scratch
};

struct KernelTable {
  std::string_view isa;  // "avx512", "avx2", "baseline"
  void (*linear)(const LinearTask& task, size_t panel_begin, size_t panel_end);
  /// The same over fp8 panels (fp8_layout.h), for the bits of weights rounded to bf16.
  void (*linear_fp8)(const LinearTask& task, size_t panel_begin, size_t panel_end);
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
  /// columns [width], `stride` floats apart = the transpose of rows [count][width]; what lies
  /// behind the first `count` of a column is left as it is.
  void (*transpose)(const float* rows, size_t width, size_t count, float* columns, size_t stride);
  /// The online softmax of sets of sixteen heads, tile by tile (docs/formats.md §1.3, absorbed
  /// form), the heads in the last index of every array. First
  /// scores [sets][64][16] = scale · query_h · entry of `count` entries, queries [sets][width][16];
  void (*attend_scores)(const AttendEntries& entries, size_t sets, const float* queries,
                        float scale, float* scores);
  /// then, of a whole tile and one set, scores [count][16] become weights e^(score − maximum).
  /// maxima [16] are −inf and sums [16] 0 before the first tile; factors [16] is what earlier
  /// tiles' sums are to be scaled with;
  void (*attend_weights)(size_t count, float* scores, float* maxima, float* sums, float* factors);
  /// then context [sets][rank][16] (a set every `context_set` floats) = factors [sets][16] ·
  /// context
  /// + Σ weights [sets][64][16] · entry for the ranks [begin, end), without the first term in the
  /// first tile, where factors are null; not yet divided by sums. `entries` is the whole tile.
  void (*attend_values)(const AttendEntries& entries, size_t sets, const float* weights,
                        const float* factors, size_t begin, size_t end, size_t context_set,
                        float* context);
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
