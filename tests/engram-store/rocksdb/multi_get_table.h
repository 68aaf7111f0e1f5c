// A table as a plain RocksDB database: row id → row, read with MultiGet. What the benchmark
// compares the store's ways with; no part of the store.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace expertmesh::engram_store {

class MultiGetTable {
 public:
  /// Writes rows [rows, row_bytes] into a new database, sorts them and reads them once, so that all
  /// lie in its block cache.
  static absl::StatusOr<std::unique_ptr<MultiGetTable>> Make(const std::string& directory,
                                                             std::span<const std::byte> rows,
                                                             size_t row_bytes);
  ~MultiGetTable();
  /// out [ids, row_bytes].
  absl::Status Read(std::span<const uint64_t> ids, std::byte* out) const;

 private:
  struct Impl;
  explicit MultiGetTable(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::engram_store
