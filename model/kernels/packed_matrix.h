// Weights of a Linear in panels of sixteen outputs, [ceil(outputs/16)][inputs][16], so that a
// kernel reads memory in order and keeps one output per lane. One row and many rows share this
// layout. Panels of int8 and of fp8 weights have layouts of their own (int8_layout.h,
// fp8_layout.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "model/formats/stored_matrix.h"
#include "model/kernels/fp8_layout.h"
#include "model/kernels/int8_layout.h"
#include "model/profile.h"

namespace expertmesh::model {

/// A view into a WeightArena. Missing outputs of the last panel are zero and never stored to.
struct PackedMatrix {
  size_t outputs = 0;
  size_t inputs = 0;
  Dtype dtype = Dtype::kF32;
  std::byte* panels = nullptr;  // 64-aligned

  size_t panel_count() const { return (outputs + 15) / 16; }
  size_t panel_bytes() const {
    if (dtype == Dtype::kFp8) return Fp8PanelBytes(inputs);
    return IsInt8Weight(dtype) ? Int8PanelBytes(dtype, inputs) : 16 * inputs * DtypeBytes(dtype);
  }
  size_t bytes() const { return panel_count() * panel_bytes(); }
  /// The outputs of `count` panels from `first` on, as a matrix of its own.
  PackedMatrix Panels(size_t first, size_t count) const {
    return {std::min(outputs - first * 16, count * 16), inputs, dtype,
            panels + first * panel_bytes()};
  }
};

/// Memory of weights: a few large mappings, zeroed, given back at once, in huge pages where the
/// kernel has some. Untouched pages cost nothing.
class WeightArena {
 public:
  WeightArena() = default;
  ~WeightArena();
  WeightArena(const WeightArena&) = delete;
  WeightArena& operator=(const WeightArena&) = delete;

  /// 64-aligned zeroed memory that lives as long as the arena.
  std::byte* Allocate(size_t bytes);
  PackedMatrix NewMatrix(size_t outputs, size_t inputs, Dtype dtype);
  uint64_t allocated_bytes() const { return allocated_; }
  /// What was allocated, in this order, each of Rounded bytes.
  std::span<const std::span<std::byte>> allocations() const { return allocations_; }
  static size_t Rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }
  /// Gives everything back.
  void Clear();

 private:
  struct Mapping {
    std::byte* memory;
    size_t bytes;
  };
  std::vector<Mapping> mappings_;
  std::vector<std::span<std::byte>> allocations_;
  size_t used_ = 0;  // of the last mapping
  uint64_t allocated_ = 0;
};

/// Rows [row_begin, row_begin + rows) of a matrix [.., to.inputs] in any stored form become outputs
/// [output_begin, …) of `to`: decoded to float32 (DecodeRows, whose errors these are), then kept or
/// rounded to nearest even; for int8 and four bits see pack_int8.h, for fp8 pack_fp8.h.
absl::Status PackRows(const StoredMatrix& from, size_t row_begin, size_t rows, PackedMatrix& to,
                      size_t output_begin);
/// The transpose: rows [row_begin, row_begin + to.inputs) of a matrix [.., to.outputs] become the
/// inputs. Used for Wk of the absorbed attention (docs/formats.md §1.3). int8 is quantised anew:
/// its groups lie along the inputs.
absl::Status PackTransposed(const StoredMatrix& from, size_t row_begin, PackedMatrix& to);

}  // namespace expertmesh::model
