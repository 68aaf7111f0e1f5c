// Weights of a Hugging Face directory: model.safetensors, or shards named by
// model.safetensors.index.json, memory-mapped (docs/formats.md §7.1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/formats/stored_matrix.h"

namespace expertmesh::model {

enum class TensorType { kF32, kF16, kBf16, kF8E4m3, kF8E8m0, kI8, kU8, kI32, kI64 };
size_t TensorTypeBytes(TensorType type);
std::string_view TensorTypeName(TensorType type);  // "F32", "BF16", … as in safetensors

/// A view of one tensor in the mapping; valid while the Checkpoint lives.
struct TensorView {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<uint64_t> shape;       // row-major
  std::span<const std::byte> bytes;  // may be unaligned
  std::string file;                  // for messages
};

/// One entry of a safetensors header, offsets relative to the end of the header.
struct TensorEntry {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// Parses the header of a safetensors file of `file_bytes` bytes, of which `prefix` are the first
/// (8 + header at least). Checks the bounds (header 100 MB, 2^20 tensors, rank 8, names 1 KiB),
/// that offsets lie inside the file and span just what shape and type need, and that no name stands
/// there twice and no two tensors overlap; bytes between tensors are allowed. Errors are
/// kBadCheckpoint in one line naming the tensor. Never aborts on any bytes (fuzzed).
struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;
  uint64_t data_begin = 0;  // offset of the first tensor byte in the file
};
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> prefix,
                                                         uint64_t file_bytes);

/// Immutable after Open; thread-safe.
class Checkpoint {
 public:
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);
  ~Checkpoint();

  /// The tensor, checked against the expected shape and F32, BF16 or F16; kBadCheckpoint naming
  /// file, tensor, expected and found otherwise.
  absl::StatusOr<TensorView> Float(std::string_view name, std::vector<uint64_t> shape) const;
  /// The matrix [rows, columns] of that name ("X.weight") in any form of docs/formats.md §7.6:
  /// plain, or values with the scales that stand beside them ("X.weight_scale_inv", "X.scale",
  /// "X.weight_scale"). Blocks are those of quantization_config, else those that the shape of the
  /// scales fits. kBadCheckpoint as above.
  absl::StatusOr<StoredMatrix> Matrix(std::string_view name, uint64_t rows, uint64_t columns) const;
  /// The tensor of a spec: Matrix where it may be quantised, for tables of the memory and for the
  /// head (which some publish so), Float otherwise, a vector being one row. Tensors of mHC must be
  /// F32.
  absl::StatusOr<StoredMatrix> Weight(const struct TensorSpec& spec) const;
  /// A vector of I32 or I64, widened; errors as Float.
  absl::StatusOr<std::vector<int64_t>> Integers(const struct HashTensorSpec& spec) const;
  /// Names of the scales of a matrix in this checkpoint: none or one, unless the file is wrong.
  std::vector<std::string> ScalesOf(std::string_view name) const;
  const TensorView* Find(std::string_view name) const;  // nullptr if absent
  const std::map<std::string, TensorView, std::less<>>& tensors() const;
  const std::string& directory() const;

  /// Hex SHA-256 over config.json and all weights but the tables of the memory, which have versions
  /// of their own (docs/architecture.md §2 "revision", docs/engram-store.md §1). Weight
  /// bytes go in as one CRC32C per tensor; cached beside the files in `expertmesh-revision.json`,
  /// keyed by size and mtime, where the directory is writable. `options` are the settings that are
  /// part of it.
  absl::StatusOr<std::string> Revision(std::string_view options = "") const;

  /// Tells the kernel that the bytes of a view are not needed any more (after packing).
  void Release(const TensorView& view) const { Release(view.bytes); }
  void Release(const StoredMatrix& matrix) const {
    Release(matrix.values);
    Release(matrix.scales);
  }
  void Release(std::span<const std::byte> bytes) const;

 private:
  struct Impl;
  explicit Checkpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// All tensors a config asks for, with shapes: what Load needs, `model init` writes and `show`
/// counts.
struct TensorSpec {
  std::string name;
  std::vector<uint64_t> shape;
  bool always_f32 = false;
  /// embedding, head, mla, indexer, mhc, norms, dense_ffn, routed_experts, shared_experts, gates,
  /// engram_tables or engram_projections.
  std::string part;
};
struct Config;
std::vector<TensorSpec> TensorSpecs(const Config& config);

/// Whether a tensor is a table of the memory, or its scales. A file that held nothing else may be
/// deleted once an Engram store has the tables: its tensors are missing then, the rest stands.
bool IsMemoryTable(std::string_view tensor);

/// Integer vectors of the memory's hash (docs/model-family.md §3); no parameters.
struct HashTensorSpec {
  std::string name;
  TensorType type = TensorType::kI64;  // or kI32
  uint64_t size = 0;
};
std::vector<HashTensorSpec> EngramHashSpecs(const Config& config);

/// Whether docs/model-family.md §3 marks the tensor with q: it may be stored quantised. Never the
/// embedding, head, norms, gates or what is always F32.
bool MayBeQuantised(const TensorSpec& spec);

/// A tensor F32, BF16 or F16 seen as a matrix; a vector is one row.
StoredMatrix PlainMatrix(const TensorView& view);

}  // namespace expertmesh::model
