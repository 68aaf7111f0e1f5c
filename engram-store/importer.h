// The tables of a checkpoint as rows of the record.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engram-store/core/version_catalogue.h"
#include "engram-store/rocksdb/engram_db.h"
#include "model/checkpoint.h"
#include "model/config_overrides.h"

namespace expertmesh::engram_store {

/// Tables of an open checkpoint; views live as long as it.
class CheckpointTables {
 public:
  /// kBadCheckpoint naming file and tensor: a table is missing, misshapen, or in a form that tables
  /// do not have. A model without a memory gives a shape without layers.
  static absl::StatusOr<CheckpointTables> Open(const std::string& directory,
                                               const model::ConfigOverrides& overrides);

  const TableShape& shape() const { return shape_; }
  /// Hands all blocks of all tables, in order, to `use` and adds their hashes to `sum`.
  using UseBlock = std::function<absl::Status(uint32_t layer, uint64_t block,
                                              std::span<const std::byte> records)>;
  absl::Status Read(const UseBlock& use, ContentSum& sum) const;

 private:
  std::unique_ptr<model::Checkpoint> checkpoint_;
  std::vector<model::StoredMatrix> tables_;  // [layers]
  TableShape shape_;
};

/// Form of a row ↔ form of a stored matrix.
model::MatrixFormat MatrixFormatOf(RowFormat format);

}  // namespace expertmesh::engram_store
