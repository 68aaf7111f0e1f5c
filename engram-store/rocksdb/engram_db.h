// The record of an Engram store: a RocksDB directory with the published versions
// (docs/architecture.md §9). The only place of this component that knows RocksDB.
//
//   "format"                                  → "expertmesh-engram 1"
//   "version/" model \0 revision \0 version   → rows u64, sequence u64, little-endian
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engram-store/core/version_catalogue.h"

namespace expertmesh::engram_store {

/// Holds the directory's lock while it lives. Thread-safe.
class EngramDb {
 public:
  /// Opens, or makes, the database in `directory` (its parent must exist). Errors are
  /// kInvalidArgument in one line: another process has it, it is no directory, it holds other
  /// files, it is a database of something else, it is damaged.
  static absl::StatusOr<std::unique_ptr<EngramDb>> Open(const std::string& directory);
  ~EngramDb();
  EngramDb(const EngramDb&) = delete;
  EngramDb& operator=(const EngramDb&) = delete;

  /// All of them, in no order that counts. An entry that cannot be read is an error.
  absl::StatusOr<std::vector<VersionRecord>> ListVersions() const;
  /// Adds or replaces; on disk when it returns. kInvalidArgument for a name with a NUL byte.
  absl::Status PutVersion(const VersionRecord& version);

 private:
  struct Impl;
  explicit EngramDb(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::engram_store
