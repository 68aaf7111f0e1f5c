// All versions of the n-gram tables of a store: what is served, what is changed, what may go
// (docs/engram-store.md). Puts record, segments and leases together.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engram-store/cold_table.h"
#include "engram-store/core/lease_table.h"
#include "engram-store/core/version_catalogue.h"
#include "engram-store/rocksdb/engram_db.h"
#include "engram-store/segment_files.h"
#include "model/config_overrides.h"
#include "services/base/clock.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::engram_store {

class CheckpointTables;

/// A published version as look-ups see it. Immutable; stays readable while somebody holds it, also
/// when it was pruned meanwhile, except in cold mode.
struct ServedVersion {
  VersionRecord record;
  SegmentFolder::Tables tables;
};

/// Which model, which version; "" as in the calls.
struct VersionQuery {
  std::string model = {};
  std::string revision = {};
  std::string version = {};
};

struct Caller {
  std::string tenant = "anonymous";
  std::string principal = "anonymous";
};

/// Thread-safe. Changes run one at a time.
class EngramTables {
 public:
  struct Options {
    std::string data_directory;
    bool cold = false;
    size_t hot_rows = 1 << 20;            // of cold mode
    std::vector<std::string> publishers;  // principals that may change; empty = everybody
    uint64_t first_lease = 1;             // random, see LeaseTable
  };
  /// Opens or makes the directory and whatever it serves; mends what a stopped process left.
  static absl::StatusOr<std::unique_ptr<EngramTables>> Open(Options options,
                                                            const base::Clock& clock,
                                                            telemetry::Metrics& metrics);

  /// Publishes the tables of a model directory, unless a version of that model and revision is
  /// there or the model has no memory. `progress` is told rows done and rows in all.
  using Progress = std::function<void(uint64_t done, uint64_t total)>;
  absl::Status Import(const std::string& directory, const std::string& model,
                      const std::string& revision, const Progress& progress,
                      const model::ConfigOverrides& overrides = {});

  /// kModelHasNoMemory or kEngramVersionNotFound.
  absl::StatusOr<std::shared_ptr<const ServedVersion>> Find(const VersionQuery& query) const;
  /// Also drafts.
  absl::StatusOr<VersionRecord> Describe(const VersionQuery& query) const;
  struct Listed {
    VersionRecord record;
    uint32_t leases = 0;
  };
  std::vector<Listed> List(const std::string& model, const std::string& revision, bool drafts);

  struct Lease {
    uint64_t number = 0;
    std::shared_ptr<const ServedVersion> version;
  };
  absl::StatusOr<Lease> Acquire(const VersionQuery& query, base::Micros ttl);
  bool Renew(uint64_t lease);
  void Release(uint64_t lease);

  /// A draft with the rows of one layer replaced; see UpdateRowsRequest.
  absl::StatusOr<VersionRecord> Update(const Caller& caller, const VersionQuery& base,
                                       uint32_t layer, std::span<const uint64_t> ids,
                                       std::span<const std::byte> rows);
  absl::StatusOr<VersionRecord> Publish(const Caller& caller, const VersionQuery& query);
  absl::StatusOr<VersionRecord> Rollback(const Caller& caller, const VersionQuery& query);
  absl::StatusOr<std::vector<std::string>> Prune(const Caller& caller, const VersionQuery& query,
                                                 size_t keep, bool drafts, bool force);
  absl::StatusOr<std::vector<engram::v1::AuditEntry>> ListAudit(size_t limit) const {
    return db_->ListAudit(limit);
  }
  const EngramDb& db() const { return *db_; }

 private:
  EngramTables(Options options, const base::Clock& clock, telemetry::Metrics& metrics);
  absl::Status Serve(const VersionRecord& version);
  absl::StatusOr<SegmentFolder::Tables> OpenTables(const VersionRecord& version);
  absl::Status WriteSegments(const VersionRecord& version) const;
  absl::Status ImportTables(const CheckpointTables& tables, const std::string& directory,
                            const VersionRecord& wanted, const Progress& progress);
  absl::StatusOr<VersionRecord> MakeCurrent(const Caller& caller, VersionRecord version,
                                            const std::string& action);
  absl::StatusOr<std::vector<ChangedBlock>> ChangeBlocks(const VersionRecord& base, uint32_t layer,
                                                         std::span<const uint64_t> ids,
                                                         std::span<const std::byte> rows,
                                                         ContentSum& sum) const;
  absl::Status Allow(const Caller& caller, const std::string& action, const VersionQuery& query);
  engram::v1::AuditEntry AuditOf(const Caller& caller, const std::string& action,
                                 const VersionQuery& query, const std::string& detail) const;
  /// Refusals are in the audit too; the error stays the answer.
  absl::Status Refused(const Caller& caller, const std::string& action, const VersionQuery& query,
                       const absl::Status& why);
  absl::Status Remove(const Caller& caller, std::vector<VersionRecord> gone,
                      const VersionQuery& query);
  void CountLocked();

  const Options options_;
  const base::Clock& clock_;
  const base::Instant start_;
  telemetry::Metrics& metrics_;
  const SegmentFolder segments_;
  std::unique_ptr<EngramDb> db_;

  std::mutex change_mutex_;  // one change at a time; taken before mutex_

  mutable std::mutex mutex_;
  VersionCatalogue catalogue_;                                          // guarded by mutex_
  std::map<std::string, std::shared_ptr<const ServedVersion>> served_;  // guarded by mutex_; by key
  std::map<std::string, std::string> unserved_;  // guarded by mutex_; key → why it is not served
  LeaseTable leases_;                            // guarded by mutex_
  std::shared_ptr<HotRows> hot_;                 // guarded by change_mutex_
  uint64_t next_table_ = 1;                      // guarded by change_mutex_; of the hot rows

  telemetry::Gauge versions_gauge_, leases_gauge_, segment_bytes_;
};

}  // namespace expertmesh::engram_store
