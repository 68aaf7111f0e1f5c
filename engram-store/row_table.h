// Where the rows of one table of a version come from: a segment, or the record.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "model/tables/mapped_segment.h"

namespace expertmesh::engram_store {

/// Thread-safe.
class RowTable {
 public:
  virtual ~RowTable() = default;
  /// Rows in the order asked for; out [ids, row bytes]. The caller has checked that the ids exist.
  /// Each row is held against its checksum: kEngramChecksum naming file, layer and row.
  virtual absl::Status Read(std::span<const uint64_t> ids, std::byte* out) const = 0;
  /// The file that others on this host may map as well; null if there is none.
  virtual const model::MappedSegment* segment() const { return nullptr; }
};

}  // namespace expertmesh::engram_store
