// Rows straight from the record, through a cache of hot rows: cold mode (docs/engram-store.md §6).
#pragma once

#include <memory>
#include <mutex>

#include "engram-store/core/version_catalogue.h"
#include "engram-store/rocksdb/engram_db.h"
#include "engram-store/row_table.h"
#include "services/base/row_cache.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::engram_store {

/// One for all tables of a row size. Thread-safe.
class HotRows {
 public:
  HotRows(size_t rows_max, size_t row_bytes, telemetry::Metrics& metrics);
  size_t row_bytes() const { return cache_.row_bytes(); }

 private:
  friend class ColdTable;
  std::mutex mutex_;
  base::RowCache cache_;  // guarded by mutex_
  telemetry::Counter hits_;
  telemetry::Counter misses_;
};

class ColdTable final : public RowTable {
 public:
  /// `table` tells the rows of this table from those of others in the cache. The database outlives
  /// this.
  ColdTable(const EngramDb& db, VersionRecord version, uint32_t layer, uint64_t table,
            std::shared_ptr<HotRows> hot)
      : db_(db), version_(std::move(version)), layer_(layer), table_(table), hot_(std::move(hot)) {}

  absl::Status Read(std::span<const uint64_t> ids, std::byte* out) const override;

 private:
  const EngramDb& db_;
  const VersionRecord version_;
  const uint32_t layer_;
  const uint64_t table_;
  const std::shared_ptr<HotRows> hot_;
};

}  // namespace expertmesh::engram_store
