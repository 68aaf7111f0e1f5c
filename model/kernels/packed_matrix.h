// Weights of a Linear in panels of sixteen outputs, [ceil(outputs/16)][inputs][16], so that a
// kernel reads memory in order and keeps one output per lane. One row and many rows share this
// layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "model/formats/stored_matrix.h"
#include "model/profile.h"

namespace expertmesh::model {

/// A view into a WeightArena. Missing outputs of the last panel are zero and never stored to.
struct PackedMatrix {
  size_t outputs = 0;
  size_t inputs = 0;
  Dtype dtype = Dtype::kF32;
  std::byte* panels = nullptr;  // 64-aligned

  size_t panel_count() const { return (outputs + 15) / 16; }
  size_t bytes() const { return panel_count() * 16 * inputs * DtypeBytes(dtype); }
};

/// Memory of weights: a few large mappings, zeroed, given back at once. Untouched pages cost
/// nothing.
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

 private:
  struct Mapping {
    std::byte* memory;
    size_t bytes;
  };
  std::vector<Mapping> mappings_;
  size_t used_ = 0;  // of the last mapping
  uint64_t allocated_ = 0;
};

/// Rows [row_begin, row_begin + rows) of a matrix [.., to.inputs] in any stored form become outputs
/// [output_begin, …) of `to`: decoded to float32 (DecodeRows, whose errors these are), then kept or
/// rounded to nearest even.
absl::Status PackRows(const StoredMatrix& from, size_t row_begin, size_t rows, PackedMatrix& to,
                      size_t output_begin);
/// The transpose: rows [row_begin, row_begin + to.inputs) of a matrix [.., to.outputs] become the
/// inputs. Used for Wk of the absorbed attention (docs/formats.md §1.3).
absl::Status PackTransposed(const StoredMatrix& from, size_t row_begin, PackedMatrix& to);

}  // namespace expertmesh::model
