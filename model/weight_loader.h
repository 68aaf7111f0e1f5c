// Reads the tensors of a checkpoint into packed weights under a profile (docs/architecture.md §4).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/kernels/packed_matrix.h"
#include "model/packed_cache.h"
#include "model/profile.h"

namespace expertmesh::model {

/// Used while loading only; checkpoint and arena outlive it. Every error names file and tensor.
/// Source bytes are released after packing, so weights are in memory once. Whatever the stored form
/// (docs/formats.md §7.6), its exact float32 value is kept in a profile without rounding (as bf16
/// where it is stored so), and rounded to the nearest bf16, ties to even, in `bf16`; so the bits of
/// a quantised model are those of the F32 model that holds its decoded values. Under `bf16`,
/// Linears of fp8 stay codes in memory where panels can hold them (pack_fp8.h). In `int8` the
/// matrices of Linears become int8, or stay int4 or fp4 (pack_int8.h); tables and what is unrounded
/// are as in `bf16`.
class WeightLoader {
 public:
  /// With `packed`, matrices and tables are its pieces, and of the file only scales of fp8 are
  /// read; kBadCheckpoint when the pieces do not fit.
  WeightLoader(const Checkpoint& checkpoint, const Profile& profile, WeightArena& arena,
               PackedWeights* packed = nullptr)
      : checkpoint_(checkpoint), profile_(profile), arena_(arena), packed_(packed) {}

  struct Part {
    std::string name;
    size_t outputs;
  };
  /// The parts [outputs, inputs] stacked into one matrix, in this order.
  absl::StatusOr<PackedMatrix> Stacked(const std::vector<Part>& parts, size_t inputs) const;
  absl::StatusOr<PackedMatrix> Matrix(const std::string& name, size_t outputs,
                                      size_t inputs) const {
    return Stacked({{name, outputs}}, inputs);
  }
  /// As stored, never rounded: the gate.
  absl::StatusOr<PackedMatrix> UnroundedMatrix(const std::string& name, size_t outputs,
                                               size_t inputs) const;

  /// kv_b [heads·(nope + value), rank] split per head for the absorbed form (docs/formats.md §1.3).
  struct Absorbed {
    std::vector<PackedMatrix> key;    // [heads] of outputs = rank, inputs = nope: Wkᵀ
    std::vector<PackedMatrix> value;  // [heads] of outputs = value, inputs = rank: Wv
  };
  absl::StatusOr<Absorbed> KeyValue(const std::string& name, size_t heads, size_t nope,
                                    size_t value, size_t rank) const;

  /// A table [rows, width] kept row-major, for lookups; never quantised.
  struct Table {
    Dtype dtype = Dtype::kF32;
    size_t width = 0;
    const std::byte* rows = nullptr;
    /// Row `index` in f32 into out [width].
    void Read(size_t index, float* out) const;
  };
  absl::StatusOr<Table> Lookup(const std::string& name, size_t rows, size_t width) const;

  /// A vector in f32, never rounded: norms and biases.
  absl::StatusOr<std::vector<float>> Vector(const std::string& name, size_t size) const;
  /// A small matrix [rows, columns] in f32, never rounded, row-major.
  absl::StatusOr<std::vector<float>> Flat(const std::string& name, size_t rows,
                                          size_t columns) const;

 private:
  absl::StatusOr<std::byte*> Allocate(size_t bytes) const;
  absl::StatusOr<PackedMatrix> NewMatrix(size_t outputs, size_t inputs, Dtype dtype) const;
  Dtype LinearDtype(const StoredMatrix& matrix) const;
  Dtype TableDtype(const StoredMatrix& matrix) const;

  const Checkpoint& checkpoint_;
  const Profile& profile_;
  WeightArena& arena_;
  PackedWeights* packed_;
};

}  // namespace expertmesh::model
