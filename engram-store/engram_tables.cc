#include "engram-store/engram_tables.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engram-store/disk_space.h"
#include "engram-store/importer.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::engram_store {

using base::Error;
using base::Reason;
namespace metric = telemetry::metric;

namespace {

constexpr int kProgressTenths = 10;
const Caller kStore{"anonymous", "engram-store"};

}  // namespace

EngramTables::EngramTables(Options options, const base::Clock& clock, telemetry::Metrics& metrics)
    : options_(std::move(options)),
      clock_(clock),
      start_(clock.Now()),
      metrics_(metrics),
      segments_(options_.data_directory),
      leases_(options_.first_lease),
      versions_gauge_(metrics.GetGauge(metric::kEngramVersions)),
      leases_gauge_(metrics.GetGauge(metric::kEngramLeases)),
      segment_bytes_(metrics.GetGauge(metric::kEngramSegmentBytes)) {}

absl::StatusOr<std::unique_ptr<EngramTables>> EngramTables::Open(Options options,
                                                                 const base::Clock& clock,
                                                                 telemetry::Metrics& metrics) {
  std::unique_ptr<EngramTables> tables(new EngramTables(std::move(options), clock, metrics));
  EM_ASSIGN_OR_RETURN(tables->db_, EngramDb::Open(tables->options_.data_directory));
  EM_ASSIGN_OR_RETURN(std::vector<VersionRecord> versions, tables->db_->ListVersions());
  std::set<std::string> published;
  for (const VersionRecord& v : versions) {
    if (v.published() && !tables->options_.cold) published.insert(v.version);
  }
  tables->segments_.CleanUp(published);
  tables->catalogue_ = VersionCatalogue(versions);
  for (const VersionRecord& v : versions) {
    if (!v.published()) continue;
    if (const absl::Status status = tables->Serve(v); !status.ok()) {
      spdlog::error("version {} is not served: {}", v.version.substr(0, 12),
                    std::string(status.message()));
      tables->unserved_[v.key()] = std::string(status.message());
    }
  }
  std::lock_guard lock(tables->mutex_);
  tables->CountLocked();
  return tables;
}

absl::StatusOr<SegmentFolder::Tables> EngramTables::OpenTables(const VersionRecord& version) {
  if (!options_.cold) {
    absl::StatusOr<SegmentFolder::Tables> tables = segments_.Open(version);
    if (tables.ok()) return tables;
    spdlog::warn("writing the segments of version {} from the record: {}",
                 version.version.substr(0, 12), std::string(tables.status().message()));
    EM_RETURN_IF_ERROR(WriteSegments(version));
    return segments_.Open(version);
  }
  const size_t row_bytes = version.shape.row_bytes();
  if (!hot_ || hot_->row_bytes() != row_bytes) {
    hot_ = std::make_shared<HotRows>(options_.hot_rows, row_bytes, metrics_);
  }
  SegmentFolder::Tables tables;
  for (const TableShape::Layer& layer : version.shape.layers) {
    tables.emplace(layer.layer,
                   std::make_unique<ColdTable>(*db_, version, layer.layer, next_table_++, hot_));
  }
  return tables;
}

absl::Status EngramTables::Serve(const VersionRecord& version) {
  EM_ASSIGN_OR_RETURN(SegmentFolder::Tables tables, OpenTables(version));
  auto served = std::make_shared<ServedVersion>();
  served->record = version;
  served->tables = std::move(tables);
  std::lock_guard lock(mutex_);
  served_[version.key()] = std::move(served);
  unserved_.erase(version.key());
  return absl::OkStatus();
}

absl::Status EngramTables::WriteSegments(const VersionRecord& version) const {
  return segments_.Write(version, [&](uint32_t layer, const SegmentFolder::UseBlock& use) {
    return db_->ReadTable(version, layer, use);
  });
}

void EngramTables::CountLocked() {
  versions_gauge_.Set(static_cast<double>(served_.size()));
  leases_gauge_.Set(static_cast<double>(leases_.size(clock_.Now())));
  uint64_t bytes = 0;
  for (const auto& [key, served] : served_) {
    if (!options_.cold) bytes += served->record.shape.total_bytes();
  }
  segment_bytes_.Set(static_cast<double>(bytes));
}

absl::StatusOr<VersionRecord> EngramTables::Describe(const VersionQuery& query) const {
  std::lock_guard lock(mutex_);
  const VersionRecord* found = catalogue_.Find(query.model, query.revision, query.version);
  if (found != nullptr) return *found;
  const std::string whose =
      absl::StrCat("model \"", query.model, "\"",
                   query.revision.empty() ? "" : " revision " + query.revision.substr(0, 12));
  if (catalogue_.List(query.model, query.revision).empty() || query.model.empty()) {
    return Error(Reason::kModelHasNoMemory,
                 absl::StrCat("this store holds no Engram tables of ", whose));
  }
  return Error(
      Reason::kEngramVersionNotFound,
      absl::StrCat("this store has no version ",
                   query.version.empty() ? "that is published" : query.version, " of ", whose));
}

absl::StatusOr<std::shared_ptr<const ServedVersion>> EngramTables::Find(
    const VersionQuery& query) const {
  EM_ASSIGN_OR_RETURN(const VersionRecord record, Describe(query));
  std::lock_guard lock(mutex_);
  const auto it = served_.find(record.key());
  if (it != served_.end()) return it->second;
  const auto why = unserved_.find(record.key());
  return Error(Reason::kEngramVersionNotFound,
               absl::StrCat("version ", record.version, " is not served: ",
                            why == unserved_.end() ? "it is a draft; publish it" : why->second));
}

std::vector<EngramTables::Listed> EngramTables::List(const std::string& model,
                                                     const std::string& revision, bool drafts) {
  std::lock_guard lock(mutex_);
  std::vector<Listed> list;
  for (VersionRecord& v : catalogue_.List(model, revision)) {
    if (!v.published() && !drafts) continue;
    const uint32_t leases = leases_.Count(v.key(), clock_.Now());
    list.push_back({std::move(v), leases});
  }
  return list;
}

absl::StatusOr<EngramTables::Lease> EngramTables::Acquire(const VersionQuery& query,
                                                          base::Micros ttl) {
  // Found and leased in one step, so that no prune comes between.
  EM_ASSIGN_OR_RETURN(const auto served, Find(query));
  std::lock_guard lock(mutex_);
  const std::string key = served->record.key();
  if (!served_.contains(key)) {
    return Error(Reason::kEngramVersionNotFound,
                 absl::StrCat("version ", served->record.version, " was just pruned"));
  }
  const uint64_t number = leases_.Acquire(key, ttl, clock_.Now());
  leases_gauge_.Set(static_cast<double>(leases_.size(clock_.Now())));
  return Lease{number, served};
}

bool EngramTables::Renew(uint64_t lease) {
  std::lock_guard lock(mutex_);
  return leases_.Renew(lease, clock_.Now());
}

void EngramTables::Release(uint64_t lease) {
  std::lock_guard lock(mutex_);
  leases_.Release(lease);
  leases_gauge_.Set(static_cast<double>(leases_.size(clock_.Now())));
}

absl::Status EngramTables::Import(const std::string& directory, const std::string& model,
                                  const std::string& revision, const Progress& progress,
                                  const model::ConfigOverrides& overrides) {
  std::unique_lock change(change_mutex_);
  std::vector<VersionRecord> have;
  {
    std::lock_guard lock(mutex_);
    have = catalogue_.List(model, revision);
  }
  if (!have.empty() && have.front().published()) return absl::OkStatus();
  VersionRecord wanted;
  wanted.model = model;
  wanted.revision = revision;
  if (have.empty()) {
    EM_ASSIGN_OR_RETURN(const CheckpointTables tables,
                        CheckpointTables::Open(directory, overrides));
    EM_RETURN_IF_ERROR(ImportTables(tables, directory, wanted, progress));
    std::lock_guard lock(mutex_);
    have = catalogue_.List(model, revision);
  }
  // An import that was stopped before it was published is a draft without a base.
  const auto draft =
      std::find_if(have.begin(), have.end(), [](const VersionRecord& v) { return v.base.empty(); });
  if (draft == have.end()) return absl::OkStatus();
  return MakeCurrent(kStore, *draft, "publish").status();
}

absl::Status EngramTables::ImportTables(const CheckpointTables& tables,
                                        const std::string& directory, const VersionRecord& wanted,
                                        const Progress& progress) {
  const uint64_t total = tables.shape().total_rows();
  if (total == 0) return absl::OkStatus();  // a model without a memory
  // Sorted tables, and RocksDB's own overhead of a few per cent; then the segments.
  const uint64_t bytes = tables.shape().total_bytes();
  const uint64_t needed = bytes + bytes / 16 + (1 << 20) + (options_.cold ? 0 : bytes);
  const std::string what = absl::StrCat("importing the tables of ", directory);
  EM_RETURN_IF_ERROR(CheckRoom(options_.data_directory, needed, what));
  VersionRecord version = wanted;
  {
    std::lock_guard lock(mutex_);
    version.root = catalogue_.next_change();
  }
  version.shape = tables.shape();
  version.changes = {version.root};
  const auto failed = [&](const absl::Status& status) {
    if (base::ReasonOf(status) != Reason::kDiskFull) return status;
    return base::Annotate(
        status, absl::StrCat(what, " needs ", needed, " bytes in ", options_.data_directory, ": "));
  };
  EM_ASSIGN_OR_RETURN(const auto import, db_->BeginImport(version.root));
  ContentSum sum;
  uint64_t done = 0;
  uint64_t told = 0;
  const absl::Status read = tables.Read(
      [&](uint32_t layer, uint64_t block, std::span<const std::byte> records) -> absl::Status {
        EM_RETURN_IF_ERROR(import->Add(layer, block, records));
        done += records.size() / version.shape.record_bytes();
        if (done * kProgressTenths / total > told) {
          told = done * kProgressTenths / total;
          progress(done, total);
        }
        return absl::OkStatus();
      },
      sum);
  if (!read.ok()) return failed(read);
  version.sum = sum.bytes();
  version.version = VersionName(VersionOf(version.shape, sum));
  version.created_unix_ms = absl::ToUnixMillis(absl::Now());
  const VersionQuery query{version.model, version.revision, version.version};
  const absl::Status committed = import->Commit(
      version, AuditOf(kStore, "import", query, absl::StrCat(total, " rows of ", directory)));
  if (!committed.ok()) return failed(committed);
  std::lock_guard lock(mutex_);
  catalogue_.Put(version);
  return absl::OkStatus();
}

}  // namespace expertmesh::engram_store
