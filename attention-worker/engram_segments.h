// The tables of a version as files of a store on this host: mapped into this process, so that a row
// is one read of memory (docs/engram-store.md §5).
#pragma once

#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "expertmesh/engram/v1/engram.pb.h"
#include "model/tables/mapped_segment.h"

namespace expertmesh::attention_worker {

/// Immutable, thread-safe. Readable while it lives, whatever becomes of the store and of the files'
/// names.
class MappedTables {
 public:
  /// Maps the files that a store named with a lease. An error, beginning with the path where there
  /// is one, unless there is exactly one for each table and each is the file that the store has
  /// open, whole, and of the leased version, layer and shape.
  static absl::StatusOr<std::shared_ptr<const MappedTables>> Open(
      const engram::v1::AcquireLeaseResponse& lease);

  /// Null if there is no such table.
  const model::MappedSegment* Find(uint32_t layer) const;

 private:
  std::map<uint32_t, std::unique_ptr<const model::MappedSegment>> segments_;  // by layer
};

}  // namespace expertmesh::attention_worker
