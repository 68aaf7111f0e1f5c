// What changes the tables: update, publish, roll back, prune.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engram-store/disk_space.h"
#include "engram-store/engram_tables.h"
#include "engram-store/importer.h"
#include "model/formats/table_row.h"
#include "model/tables/row_record.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::engram_store {

using base::Error;
using base::Reason;
namespace metric = telemetry::metric;

namespace {

constexpr size_t kUpdateRowsMax = 16384;
constexpr size_t kChangesMax = 4096;
constexpr size_t kKeptVersions = 3;
constexpr uint64_t kUpdateSlackBytes = 1 << 20;
const Caller kStore{"anonymous", "engram-store"};

std::string Short(const std::string& version) { return version.substr(0, 12); }

// Values that a step could not use are not taken in.
absl::Status CheckValues(const TableShape& shape, std::span<const uint64_t> ids,
                         std::span<const std::byte> rows) {
  model::TableRowCodec codec(MatrixFormatOf(shape.format), shape.width);
  std::vector<float> values(shape.width);
  for (size_t i = 0; i < ids.size(); ++i) {
    const absl::Status decoded =
        codec.Decode(rows.subspan(i * shape.row_bytes(), shape.row_bytes()), values.data());
    const bool finite = decoded.ok() && std::all_of(values.begin(), values.end(),
                                                    [](float v) { return std::isfinite(v); });
    if (!finite) {
      return Error(Reason::kInvalidArgument,
                   absl::StrCat("row ", ids[i], " holds a value that is not a finite number"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckUpdate(const VersionRecord& base, uint32_t layer, std::span<const uint64_t> ids,
                         std::span<const std::byte> rows) {
  const TableShape& shape = base.shape;
  const TableShape::Layer* table = shape.Find(layer);
  if (table == nullptr) {
    return Error(Reason::kEngramRowNotFound,
                 absl::StrCat("the version has no table of layer ", layer));
  }
  if (ids.empty() || ids.size() > kUpdateRowsMax) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("row_ids holds ", ids.size(), " ids; 1 to ", kUpdateRowsMax));
  }
  if (rows.size() != ids.size() * shape.row_bytes()) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("rows holds ", rows.size(), " bytes; ", ids.size(), " rows of ",
                              shape.width, " columns have ", shape.row_bytes(), " bytes each"));
  }
  std::set<uint64_t> seen;
  for (const uint64_t id : ids) {
    if (id >= table->rows) {
      return Error(Reason::kEngramRowNotFound,
                   absl::StrCat("layer ", layer, " has rows 0 to ", table->rows - 1, ", not ", id));
    }
    if (!seen.insert(id).second) {
      return Error(Reason::kInvalidArgument, absl::StrCat("row ", id, " stands there twice"));
    }
  }
  if (base.changes.size() > kChangesMax) {
    return Error(Reason::kQueueFull,
                 absl::StrCat("the version is ", base.changes.size() - 1,
                              " changes away from its import; import the tables anew"));
  }
  return CheckValues(shape, ids, rows);
}

}  // namespace

engram::v1::AuditEntry EngramTables::AuditOf(const Caller& caller, const std::string& action,
                                             const VersionQuery& query,
                                             const std::string& detail) const {
  engram::v1::AuditEntry entry;
  entry.set_unix_ms(absl::ToUnixMillis(absl::Now()));
  entry.set_tenant(caller.tenant);
  entry.set_principal(caller.principal);
  entry.set_action(action);
  entry.mutable_model()->set_model(query.model);
  entry.mutable_model()->set_revision(query.revision);
  entry.set_version(query.version);
  entry.set_detail(detail);
  entry.set_done(true);
  return entry;
}

absl::Status EngramTables::Refused(const Caller& caller, const std::string& action,
                                   const VersionQuery& query, const absl::Status& why) {
  metrics_.GetCounter(metric::kEngramChanges, {{"action", action}, {"result", "refused"}}).Add();
  if (base::ReasonOf(why) == Reason::kDiskFull) {
    // A write that fails would cost RocksDB its log: nothing more is written until there is room.
    spdlog::error("{} by {}: {}", action, caller.principal, std::string(why.message()));
    return why;
  }
  engram::v1::AuditEntry entry = AuditOf(
      caller, action, query,
      absl::StrCat(std::string(base::ReasonName(base::ReasonOf(why))), ": ", why.message()));
  entry.set_done(false);
  if (const absl::Status written = db_->AddAudit(entry); !written.ok()) {
    spdlog::error("a refusal is not in the audit: {}", std::string(written.message()));
  }
  return why;
}

absl::Status EngramTables::Allow(const Caller& caller, const std::string& action,
                                 const VersionQuery& query) {
  const auto& allowed = options_.publishers;
  if (allowed.empty() ||
      std::find(allowed.begin(), allowed.end(), caller.principal) != allowed.end()) {
    return absl::OkStatus();
  }
  return Refused(caller, action, query,
                 Error(Reason::kPermissionDenied,
                       absl::StrCat("principal \"", caller.principal, "\" may not ", action,
                                    "; --publishers of the store names who may")));
}

absl::StatusOr<std::vector<ChangedBlock>> EngramTables::ChangeBlocks(
    const VersionRecord& base, uint32_t layer, std::span<const uint64_t> ids,
    std::span<const std::byte> rows, ContentSum& sum) const {
  const TableShape& shape = base.shape;
  const size_t record = shape.record_bytes();
  std::map<uint64_t, std::vector<size_t>> places;  // block → places in ids
  for (size_t i = 0; i < ids.size(); ++i) places[ids[i] / shape.rows_per_block()].push_back(i);
  std::vector<uint64_t> blocks;
  blocks.reserve(places.size());
  for (const auto& [block, in_block] : places) blocks.push_back(block);
  std::vector<ChangedBlock> changed;
  const auto change = [&](uint64_t block, std::span<const std::byte> old) -> absl::Status {
    const uint64_t first = block * shape.rows_per_block();
    for (size_t at = 0; at < old.size() / record; ++at) {
      if (model::IsIntact(layer, first + at, old.subspan(at * record, record))) continue;
      return Error(Reason::kEngramChecksum,
                   absl::StrCat("the record: layer ", layer, ", row ", first + at,
                                " does not match its checksum; restore the database"));
    }
    std::string records(reinterpret_cast<const char*>(old.data()), old.size());
    const auto bytes = std::as_writable_bytes(std::span(records.data(), records.size()));
    for (const size_t place : places.at(block)) {
      model::WriteRecord(layer, ids[place],
                         rows.subspan(place * shape.row_bytes(), shape.row_bytes()),
                         bytes.subspan((ids[place] - first) * record, record));
    }
    sum.Subtract(layer, block, old);
    sum.Add(layer, block, bytes);
    changed.push_back({layer, block, std::move(records)});
    return absl::OkStatus();
  };
  EM_RETURN_IF_ERROR(db_->ReadBlocks(base, layer, blocks, change));
  return changed;
}

absl::StatusOr<VersionRecord> EngramTables::Update(const Caller& caller, const VersionQuery& query,
                                                   uint32_t layer, std::span<const uint64_t> ids,
                                                   std::span<const std::byte> rows) {
  EM_RETURN_IF_ERROR(Allow(caller, "update", query));
  std::lock_guard change(change_mutex_);
  const absl::StatusOr<VersionRecord> base = Describe(query);
  if (!base.ok()) return Refused(caller, "update", query, base.status());
  if (const absl::Status status = CheckUpdate(*base, layer, ids, rows); !status.ok()) {
    return Refused(caller, "update", query, status);
  }
  ContentSum sum(base->sum);
  auto blocks = ChangeBlocks(*base, layer, ids, rows, sum);
  if (!blocks.ok()) return Refused(caller, "update", query, blocks.status());
  VersionRecord version = *base;
  version.sum = sum.bytes();
  version.version = VersionName(VersionOf(version.shape, sum));
  version.base = base->version;
  version.publish_number = 0;
  version.created_unix_ms = absl::ToUnixMillis(absl::Now());
  {
    std::lock_guard lock(mutex_);
    const VersionRecord* same = catalogue_.Find(version.model, version.revision, version.version);
    if (same != nullptr) return *same;  // the content is there already
    version.changes.insert(version.changes.begin(), catalogue_.next_change());
  }
  uint64_t bytes = kUpdateSlackBytes;
  for (const ChangedBlock& block : *blocks) bytes += 2 * block.records.size();
  absl::Status status = CheckRoom(options_.data_directory, bytes, "updating the tables");
  if (status.ok()) {
    status = db_->AddVersion(
        version, *blocks,
        AuditOf(caller, "update", {version.model, version.revision, version.version},
                absl::StrCat(ids.size(), " rows of layer ", layer, " on top of ", version.base)));
  }
  if (!status.ok()) return Refused(caller, "update", query, status);
  metrics_.GetCounter(metric::kEngramChanges, {{"action", "update"}, {"result", "done"}}).Add();
  std::lock_guard lock(mutex_);
  catalogue_.Put(version);
  return version;
}

absl::StatusOr<VersionRecord> EngramTables::MakeCurrent(const Caller& caller, VersionRecord version,
                                                        const std::string& action) {
  const VersionQuery query{version.model, version.revision, version.version};
  const bool was_published = version.published();
  const std::string key = version.key();
  std::string before = "nothing";
  bool open = false;  // its tables are being served already
  {
    std::lock_guard lock(mutex_);
    const VersionRecord* current = catalogue_.Find(version.model, version.revision, "");
    if (current != nullptr) before = current->version;
    version.publish_number = catalogue_.next_publish_number();
    open = served_.contains(key);
  }
  absl::StatusOr<SegmentFolder::Tables> tables = SegmentFolder::Tables();
  if (!open) {
    absl::Status written = options_.cold ? absl::OkStatus() : WriteSegments(version);
    if (written.ok()) {
      tables = OpenTables(version);
      written = tables.status();
    }
    if (!written.ok()) return Refused(caller, action, query, written);
  }
  const absl::Status recorded =
      db_->PutVersion(version, AuditOf(caller, action, query, "in place of " + before));
  if (!recorded.ok()) {
    if (!was_published) segments_.Remove(version.version);
    return Refused(caller, action, query, recorded);
  }
  metrics_.GetCounter(metric::kEngramChanges, {{"action", action}, {"result", "done"}}).Add();
  spdlog::info("version {} of {} is current, in place of {}", Short(version.version), version.model,
               Short(before));
  std::lock_guard lock(mutex_);
  catalogue_.Put(version);
  if (!open) {
    auto served = std::make_shared<ServedVersion>();
    served->record = version;
    served->tables = *std::move(tables);
    served_[key] = std::move(served);
    unserved_.erase(key);
  }
  CountLocked();
  return version;
}

absl::StatusOr<VersionRecord> EngramTables::Publish(const Caller& caller,
                                                    const VersionQuery& query) {
  EM_RETURN_IF_ERROR(Allow(caller, "publish", query));
  std::lock_guard change(change_mutex_);
  if (query.version.empty()) {
    return Refused(caller, "publish", query,
                   Error(Reason::kInvalidArgument, "name the version to publish"));
  }
  const absl::StatusOr<VersionRecord> version = Describe(query);
  if (!version.ok()) return Refused(caller, "publish", query, version.status());
  EM_ASSIGN_OR_RETURN(VersionRecord current, MakeCurrent(caller, *version, "publish"));
  if (clock_.Now() - start_ < kLeaseMax) return current;  // not all leases are known yet
  std::vector<VersionRecord> gone;
  {
    std::lock_guard lock(mutex_);
    gone = catalogue_.Prunable(current.model, current.revision, kKeptVersions, false,
                               leases_.Leased(clock_.Now()));
  }
  if (gone.empty()) return current;
  // What could not be removed goes with the next publish; this one is done.
  if (const absl::Status status =
          Remove(kStore, std::move(gone), {current.model, current.revision, ""});
      !status.ok()) {
    spdlog::error("old versions are still there: {}", std::string(status.message()));
  }
  return current;
}

absl::StatusOr<VersionRecord> EngramTables::Rollback(const Caller& caller,
                                                     const VersionQuery& query) {
  EM_RETURN_IF_ERROR(Allow(caller, "rollback", query));
  std::lock_guard change(change_mutex_);
  absl::StatusOr<VersionRecord> target = Describe(query);
  if (!target.ok()) return Refused(caller, "rollback", query, target.status());
  if (query.version.empty()) {
    std::lock_guard lock(mutex_);
    const VersionRecord* before = catalogue_.BeforeCurrent(query.model, query.revision);
    target = before != nullptr
                 ? absl::StatusOr<VersionRecord>(*before)
                 : Error(Reason::kEngramVersionNotFound, "there is no version before this one");
  } else if (!target->published()) {
    target = Error(Reason::kEngramVersionNotFound,
                   "that version was never published; publish it instead");
  }
  if (!target.ok()) return Refused(caller, "rollback", query, target.status());
  return MakeCurrent(caller, *target, "rollback");
}

absl::StatusOr<std::vector<std::string>> EngramTables::Prune(const Caller& caller,
                                                             const VersionQuery& query, size_t keep,
                                                             bool drafts, bool force) {
  EM_RETURN_IF_ERROR(Allow(caller, "prune", query));
  std::lock_guard change(change_mutex_);
  if (!force && clock_.Now() - start_ < kLeaseMax) {
    return Refused(caller, "prune", query,
                   Error(Reason::kNotReady,
                         "this store started less than ten minutes ago and may not know every "
                         "lease; wait, or force it"));
  }
  std::vector<VersionRecord> gone;
  {
    std::lock_guard lock(mutex_);
    gone = catalogue_.Prunable(query.model, query.revision, keep == 0 ? kKeptVersions : keep,
                               drafts, leases_.Leased(clock_.Now()));
  }
  std::vector<std::string> names;
  names.reserve(gone.size());
  for (const VersionRecord& v : gone) names.push_back(v.version);
  if (gone.empty()) return names;
  if (const absl::Status status = Remove(caller, std::move(gone), query); !status.ok()) {
    return Refused(caller, "prune", query, status);
  }
  return names;
}

absl::Status EngramTables::Remove(const Caller& caller, std::vector<VersionRecord> gone,
                                  const VersionQuery& query) {
  std::vector<VersionRecord> left;
  std::string names;
  {
    std::lock_guard lock(mutex_);
    // A lease may have come since they were chosen.
    const std::set<std::string> leased = leases_.Leased(clock_.Now());
    std::erase_if(gone, [&](const VersionRecord& v) { return leased.contains(v.key()); });
    for (const VersionRecord& v : gone) {
      catalogue_.Remove(v.key());
      served_.erase(v.key());
      unserved_.erase(v.key());
      absl::StrAppend(&names, names.empty() ? "" : " ", v.version);
    }
    left = catalogue_.List("", "");
    CountLocked();
  }
  absl::Status removed = db_->RemoveVersions(gone, left, AuditOf(caller, "prune", query, names));
  if (!removed.ok()) {
    for (const VersionRecord& v : gone) {
      {
        std::lock_guard lock(mutex_);
        catalogue_.Put(v);
      }
      if (v.published()) Serve(v).IgnoreError();
    }
    return removed;
  }
  for (const VersionRecord& v : gone) {
    const bool shared = std::any_of(left.begin(), left.end(), [&](const VersionRecord& other) {
      return other.version == v.version && other.published();
    });
    if (!shared) segments_.Remove(v.version);
  }
  metrics_.GetCounter(metric::kEngramChanges, {{"action", "prune"}, {"result", "done"}}).Add();
  return absl::OkStatus();
}

}  // namespace expertmesh::engram_store
