// The record of an Engram store: a RocksDB directory with all versions of the tables, their rows,
// and the audit (docs/engram-store.md §2). The only place of this component that knows RocksDB.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engram-store/core/version_catalogue.h"
#include "expertmesh/engram/v1/engram.pb.h"

namespace expertmesh::engram_store {

/// A block of a layer's table that an update writes: its number and its row records.
struct ChangedBlock {
  uint32_t layer = 0;
  uint64_t block = 0;
  std::string records = {};
};

/// Holds the directory's lock while it lives. Thread-safe, but one writer at a time. Errors of a
/// write: kDiskFull where the file system is full; nothing was changed then.
class EngramDb {
 public:
  /// Opens, or makes, the database in `directory` (its parent must exist), and removes what a
  /// writer that was stopped left behind. Errors are kInvalidArgument in one line: another process
  /// has it, it is no directory, it holds other files, it is a database of something else, it is
  /// damaged.
  static absl::StatusOr<std::unique_ptr<EngramDb>> Open(const std::string& directory);
  ~EngramDb();
  EngramDb(const EngramDb&) = delete;
  EngramDb& operator=(const EngramDb&) = delete;

  /// All of them, in no order that counts. An entry that cannot be read is an error.
  absl::StatusOr<std::vector<VersionRecord>> ListVersions() const;

  /// Writes the tables of a new root beside the database. Nothing of it is in the record until
  /// Commit; dropped before, it leaves nothing.
  class Import {
   public:
    virtual ~Import() = default;
    /// Blocks in ascending order of (layer, block), each whole.
    virtual absl::Status Add(uint32_t layer, uint64_t block,
                             std::span<const std::byte> records) = 0;
    /// On disk when it returns. Once.
    virtual absl::Status Commit(const VersionRecord& version,
                                const engram::v1::AuditEntry& audit) = 0;
  };
  absl::StatusOr<std::unique_ptr<Import>> BeginImport(uint64_t root);

  /// Adds a version whose first change wrote these blocks; on disk, with its audit line, when it
  /// returns.
  absl::Status AddVersion(const VersionRecord& version, std::span<const ChangedBlock> blocks,
                          const engram::v1::AuditEntry& audit);
  /// Replaces the entry of a version (its publish number).
  absl::Status PutVersion(const VersionRecord& version, const engram::v1::AuditEntry& audit);
  /// Removes versions and the blocks of changes that none of `left` has.
  absl::Status RemoveVersions(std::span<const VersionRecord> gone,
                              std::span<const VersionRecord> left,
                              const engram::v1::AuditEntry& audit);

  /// Calls `use` with the row records of each of `blocks` (ascending) of a version's table, until
  /// one is not OK. kEngramChecksum if a block is missing or damaged.
  using UseBlock = std::function<absl::Status(uint64_t block, std::span<const std::byte> records)>;
  absl::Status ReadBlocks(const VersionRecord& version, uint32_t layer,
                          std::span<const uint64_t> blocks, const UseBlock& use) const;
  /// All blocks of the table, in order.
  absl::Status ReadTable(const VersionRecord& version, uint32_t layer, const UseBlock& use) const;

  absl::Status AddAudit(const engram::v1::AuditEntry& entry);
  /// Newest first.
  absl::StatusOr<std::vector<engram::v1::AuditEntry>> ListAudit(size_t limit) const;

 private:
  struct Impl;
  explicit EngramDb(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::engram_store
