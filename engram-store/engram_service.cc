#include "engram-store/engram_service.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engram-store/core/lookup_limits.h"
#include "engram-store/rocksdb/db_keys.h"
#include "services/base/crc32c.h"
#include "services/base/host_identity.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::engram_store {

using base::Error;
using base::Reason;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
namespace metric = telemetry::metric;
namespace pb = engram::v1;

namespace {

constexpr size_t kLeasesMax = 65536;
constexpr size_t kHolderBytesMax = 128;
constexpr uint32_t kAuditDefault = 100;
constexpr uint32_t kAuditMax = 10000;

ServerUnaryReactor* Finish(CallbackServerContext* context, const absl::Status& status) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(status));
  return reactor;
}

// Runs `work` for a call that brings what every call must bring.
template <class Work>
ServerUnaryReactor* Answer(CallbackServerContext* context, const Work& work) {
  absl::Status status = rpc::RequireDeadline(*context);
  if (status.ok()) status = work();
  return Finish(context, status);
}

// The same for a change: who asks is part of it.
template <class Work>
ServerUnaryReactor* AnswerCaller(CallbackServerContext* context, const Work& work) {
  return Answer(context, [&]() -> absl::Status {
    EM_ASSIGN_OR_RETURN(const rpc::Identity identity, rpc::IdentityOf(*context));
    return work(Caller{identity.tenant, identity.principal});
  });
}

VersionQuery QueryOf(const common::v1::ModelRef& model, const std::string& version) {
  return {model.model(), model.revision(), version};
}

// None in cold mode.
void NameSegments(const ServedVersion& version, pb::AcquireLeaseResponse& response) {
  for (const auto& [layer, table] : version.tables) {
    const model::MappedSegment* segment = table->segment();
    if (segment == nullptr) continue;
    pb::SegmentFile* file = response.add_segments();
    file->set_layer(layer);
    file->set_path(std::filesystem::absolute(segment->path()).lexically_normal());
    file->set_bytes(segment->file().stamp().bytes);
    file->set_device(segment->file().identity().device);
    file->set_inode(segment->file().identity().inode);
  }
}

uint32_t ChecksumOf(const std::string& bytes) {
  return base::Crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

}  // namespace

EngramService::EngramService(EngramTables& tables, std::unique_ptr<TokenHasher> hasher,
                             const base::Clock& clock, telemetry::Metrics& metrics)
    : tables_(tables),
      hasher_(std::move(hasher)),
      clock_(clock),
      hits_(metrics.GetCounter(metric::kEngramLookups, {{"result", "hit"}})),
      misses_(metrics.GetCounter(metric::kEngramLookups, {{"result", "miss"}})),
      errors_(metrics.GetCounter(metric::kEngramLookups, {{"result", "error"}})),
      seconds_(metrics.GetHistogram(metric::kEngramLookupSeconds)) {}

absl::Status EngramService::Read(const VersionQuery& query, uint32_t layer,
                                 std::span<const uint64_t> ids, std::string& version,
                                 std::string& out) {
  const base::Instant start = clock_.Now();
  const auto count = static_cast<double>(ids.size());
  const auto counted = [&](const absl::Status& status) {
    const bool missing = status.code() == absl::StatusCode::kNotFound;
    (status.ok() ? hits_ : missing ? misses_ : errors_).Add(count);
    seconds_.Observe(static_cast<double>((clock_.Now() - start).count()) * 1e-6);
    return status;
  };
  const auto served = tables_.Find(query);
  if (!served.ok()) return counted(served.status());
  const TableShape& shape = (*served)->record.shape;
  const TableShape::Layer* table = shape.Find(layer);
  if (table == nullptr) {
    return counted(Error(Reason::kEngramRowNotFound,
                         absl::StrCat("the version has no table of layer ", layer)));
  }
  const auto beyond =
      std::find_if(ids.begin(), ids.end(), [&](uint64_t id) { return id >= table->rows; });
  if (beyond != ids.end()) {
    return counted(Error(
        Reason::kEngramRowNotFound,
        absl::StrCat("layer ", layer, " has rows 0 to ", table->rows - 1, ", not ", *beyond)));
  }
  const absl::Status fits = CheckRowBytes(ids.size(), shape.row_bytes());
  if (!fits.ok()) return counted(fits);
  version = (*served)->record.version;
  out.resize(ids.size() * shape.row_bytes());
  const absl::Status read =
      (*served)->tables.at(layer)->Read(ids, reinterpret_cast<std::byte*>(out.data()));
  if (!read.ok()) out.clear();
  return counted(read);
}

absl::Status EngramService::Rows(const pb::LookupRowsRequest& request,
                                 pb::LookupRowsResponse& response) {
  EM_RETURN_IF_ERROR(CheckRowLookup(static_cast<size_t>(request.row_ids_size())));
  const std::span<const uint64_t> ids(request.row_ids().data(),
                                      static_cast<size_t>(request.row_ids_size()));
  EM_RETURN_IF_ERROR(Read(QueryOf(request.model(), request.version()), request.layer(), ids,
                          *response.mutable_version(), *response.mutable_rows()));
  if (!ids.empty()) {
    response.set_row_bytes(static_cast<uint32_t>(response.rows().size() / ids.size()));
  }
  response.set_rows_crc32c(ChecksumOf(response.rows()));
  return absl::OkStatus();
}

absl::Status EngramService::Tokens(const pb::LookupTokensRequest& request,
                                   pb::LookupTokensResponse& response) {
  const std::span<const uint32_t> tokens(request.token_ids().data(),
                                         static_cast<size_t>(request.token_ids_size()));
  EM_RETURN_IF_ERROR(CheckTokenLookup(tokens.size(), request.skip()));
  const VersionQuery query = QueryOf(request.model(), request.version());
  EM_ASSIGN_OR_RETURN(const auto served, tables_.Find(query));
  if (hasher_ == nullptr || hasher_->revision != served->record.revision) {
    return Error(Reason::kUnsupported,
                 "this store hashes tokens only for the model that --model names; ask by row");
  }
  const auto place = hasher_->places.find(request.layer());
  if (place == hasher_->places.end()) {
    return Error(Reason::kEngramRowNotFound,
                 absl::StrCat("the version has no table of layer ", request.layer()));
  }
  const size_t columns = hasher_->hash.columns();
  const size_t count = tokens.size() - request.skip();
  if (count * columns > kLookupMax) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat(count, " tokens have ", count * columns, " rows; ask for at most ",
                              kLookupMax, " in one call"));
  }
  for (const uint32_t token : tokens) {
    if (token < hasher_->vocab_size) continue;
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("token ", token, " is not below ", hasher_->vocab_size));
  }
  std::vector<uint64_t> ids(count * columns);
  for (size_t i = 0; i < count; ++i) {
    const size_t at = request.skip() + i;
    hasher_->hash.Rows(place->second, tokens.first(at), tokens[at], ids.data() + i * columns);
  }
  EM_RETURN_IF_ERROR(
      Read(query, request.layer(), ids, *response.mutable_version(), *response.mutable_rows()));
  response.set_rows_per_token(static_cast<uint32_t>(columns));
  response.set_row_bytes(static_cast<uint32_t>(served->record.shape.row_bytes()));
  response.set_rows_crc32c(ChecksumOf(response.rows()));
  return absl::OkStatus();
}

absl::Status EngramService::Batch(const pb::LookupBatchRequest& request,
                                  pb::LookupBatchResponse& response) {
  size_t rows = 0;
  for (const pb::RowSet& set : request.sets()) rows += static_cast<size_t>(set.row_ids_size());
  EM_RETURN_IF_ERROR(CheckRowLookup(rows));
  size_t bytes = 0;
  for (const pb::RowSet& set : request.sets()) {
    pb::RowBlock* block = response.add_blocks();
    const std::span<const uint64_t> ids(set.row_ids().data(),
                                        static_cast<size_t>(set.row_ids_size()));
    std::string version;
    const absl::Status status = Read(QueryOf(request.model(), set.version()), set.layer(), ids,
                                     version, *block->mutable_rows());
    if (!status.ok()) {
      *block->mutable_status() = rpc::ToRpcStatus(status);
      continue;
    }
    if (!ids.empty()) {
      block->set_row_bytes(static_cast<uint32_t>(block->rows().size() / ids.size()));
    }
    block->set_rows_crc32c(ChecksumOf(block->rows()));
    bytes += block->rows().size();
    EM_RETURN_IF_ERROR(CheckRowBytes(bytes, 1));
  }
  return absl::OkStatus();
}

absl::Status EngramService::Update(const Caller& caller, const pb::UpdateRowsRequest& request,
                                   pb::UpdateRowsResponse& response) {
  if (ChecksumOf(request.rows()) != request.rows_crc32c()) {
    return Error(Reason::kEngramChecksum, "rows does not match rows_crc32c; nothing was changed");
  }
  const std::span<const uint64_t> ids(request.row_ids().data(),
                                      static_cast<size_t>(request.row_ids_size()));
  EM_ASSIGN_OR_RETURN(
      const VersionRecord version,
      tables_.Update(caller, QueryOf(request.model(), request.base()), request.layer(), ids,
                     std::as_bytes(std::span(request.rows().data(), request.rows().size()))));
  *response.mutable_version() = ToProto(version);
  return absl::OkStatus();
}

ServerUnaryReactor* EngramService::LookupRows(CallbackServerContext* context,
                                              const pb::LookupRowsRequest* request,
                                              pb::LookupRowsResponse* response) {
  return Answer(context, [&] { return Rows(*request, *response); });
}

ServerUnaryReactor* EngramService::LookupTokens(CallbackServerContext* context,
                                                const pb::LookupTokensRequest* request,
                                                pb::LookupTokensResponse* response) {
  return Answer(context, [&] { return Tokens(*request, *response); });
}

ServerUnaryReactor* EngramService::LookupBatch(CallbackServerContext* context,
                                               const pb::LookupBatchRequest* request,
                                               pb::LookupBatchResponse* response) {
  return Answer(context, [&] { return Batch(*request, *response); });
}

ServerUnaryReactor* EngramService::DescribeTables(CallbackServerContext* context,
                                                  const pb::DescribeTablesRequest* request,
                                                  pb::DescribeTablesResponse* response) {
  return Answer(context, [&]() -> absl::Status {
    EM_ASSIGN_OR_RETURN(const VersionRecord version,
                        tables_.Describe(QueryOf(request->model(), request->version())));
    *response->mutable_version() = ToProto(version);
    *response->mutable_shape() = ToProto(version.shape);
    return absl::OkStatus();
  });
}

ServerUnaryReactor* EngramService::ListVersions(CallbackServerContext* context,
                                                const pb::ListVersionsRequest* request,
                                                pb::ListVersionsResponse* response) {
  return Answer(context, [&] {
    const auto& model = request->model();
    for (const auto& listed : tables_.List(model.model(), model.revision(), request->drafts())) {
      pb::EngramVersion* out = response->add_versions();
      *out = ToProto(listed.record);
      out->set_leases(listed.leases);
    }
    return absl::OkStatus();
  });
}

ServerUnaryReactor* EngramService::AcquireLease(CallbackServerContext* context,
                                                const pb::AcquireLeaseRequest* request,
                                                pb::AcquireLeaseResponse* response) {
  return Answer(context, [&]() -> absl::Status {
    const base::Micros ttl = request->ttl_ms() == 0
                                 ? kLeaseDefault
                                 : base::Micros(std::chrono::milliseconds(request->ttl_ms()));
    if (ttl < kLeaseMin || ttl > kLeaseMax || request->holder().size() > kHolderBytesMax) {
      return Error(Reason::kInvalidArgument,
                   "ttl_ms is 5000 to 600000, or 0; holder has at most 128 bytes");
    }
    EM_ASSIGN_OR_RETURN(const EngramTables::Lease lease,
                        tables_.Acquire(QueryOf(request->model(), request->version()), ttl));
    response->set_lease(lease.number);
    response->set_version(lease.version->record.version);
    response->set_ttl_ms(static_cast<uint32_t>(ttl / std::chrono::milliseconds(1)));
    *response->mutable_shape() = ToProto(lease.version->record.shape);
    if (!request->host().empty() && request->host() == base::HostIdentity()) {
      NameSegments(*lease.version, *response);
    }
    return absl::OkStatus();
  });
}

ServerUnaryReactor* EngramService::RenewLeases(CallbackServerContext* context,
                                               const pb::RenewLeasesRequest* request,
                                               pb::RenewLeasesResponse* response) {
  return Answer(context, [&]() -> absl::Status {
    if (static_cast<size_t>(request->leases_size()) > kLeasesMax) {
      return Error(Reason::kInvalidArgument, "leases holds more than 65536");
    }
    for (const uint64_t lease : request->leases()) {
      if (!tables_.Renew(lease)) response->add_unknown(lease);
    }
    return absl::OkStatus();
  });
}

ServerUnaryReactor* EngramService::ReleaseLeases(CallbackServerContext* context,
                                                 const pb::ReleaseLeasesRequest* request,
                                                 pb::ReleaseLeasesResponse* /*response*/) {
  return Answer(context, [&]() -> absl::Status {
    if (static_cast<size_t>(request->leases_size()) > kLeasesMax) {
      return Error(Reason::kInvalidArgument, "leases holds more than 65536");
    }
    for (const uint64_t lease : request->leases()) tables_.Release(lease);
    return absl::OkStatus();
  });
}

ServerUnaryReactor* EngramService::UpdateRows(CallbackServerContext* context,
                                              const pb::UpdateRowsRequest* request,
                                              pb::UpdateRowsResponse* response) {
  return AnswerCaller(context,
                      [&](const Caller& caller) { return Update(caller, *request, *response); });
}

ServerUnaryReactor* EngramService::Publish(CallbackServerContext* context,
                                           const pb::PublishRequest* request,
                                           pb::PublishResponse* response) {
  return AnswerCaller(context, [&](const Caller& caller) -> absl::Status {
    EM_ASSIGN_OR_RETURN(const VersionRecord version,
                        tables_.Publish(caller, QueryOf(request->model(), request->version())));
    *response->mutable_version() = ToProto(version);
    return absl::OkStatus();
  });
}

ServerUnaryReactor* EngramService::Rollback(CallbackServerContext* context,
                                            const pb::RollbackRequest* request,
                                            pb::RollbackResponse* response) {
  return AnswerCaller(context, [&](const Caller& caller) -> absl::Status {
    EM_ASSIGN_OR_RETURN(const VersionRecord version,
                        tables_.Rollback(caller, QueryOf(request->model(), request->version())));
    *response->mutable_version() = ToProto(version);
    return absl::OkStatus();
  });
}

ServerUnaryReactor* EngramService::Prune(CallbackServerContext* context,
                                         const pb::PruneRequest* request,
                                         pb::PruneResponse* response) {
  return AnswerCaller(context, [&](const Caller& caller) -> absl::Status {
    EM_ASSIGN_OR_RETURN(const std::vector<std::string> gone,
                        tables_.Prune(caller, QueryOf(request->model(), ""), request->keep(),
                                      request->drafts(), request->force()));
    for (const std::string& version : gone) response->add_versions(version);
    return absl::OkStatus();
  });
}

ServerUnaryReactor* EngramService::ListAudit(CallbackServerContext* context,
                                             const pb::ListAuditRequest* request,
                                             pb::ListAuditResponse* response) {
  return Answer(context, [&]() -> absl::Status {
    const uint32_t limit = request->limit() == 0 ? kAuditDefault : request->limit();
    EM_ASSIGN_OR_RETURN(const auto entries, tables_.ListAudit(std::min(limit, kAuditMax)));
    for (const pb::AuditEntry& entry : entries) *response->add_entries() = entry;
    return absl::OkStatus();
  });
}

}  // namespace expertmesh::engram_store
