// engram.v1 over gRPC: checks requests, asks EngramTables, counts.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engram-store/engram_tables.h"
#include "expertmesh/engram/v1/engram.grpc.pb.h"
#include "model/engram_hash.h"
#include "services/base/clock.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::engram_store {

/// The hash of one model, for LookupTokens.
struct TokenHasher {
  std::string revision;
  uint32_t vocab_size = 0;
  std::map<uint32_t, size_t> places;  // layer → place of engram_layer_ids
  model::EngramHash hash;
};

/// Thread-safe.
class EngramService final : public engram::v1::EngramService::CallbackService {
 public:
  /// `hasher` may be null. All references outlive the service.
  EngramService(EngramTables& tables, std::unique_ptr<TokenHasher> hasher, const base::Clock& clock,
                telemetry::Metrics& metrics);

  // One method for each call of the proto, where they are described.
  grpc::ServerUnaryReactor* LookupRows(grpc::CallbackServerContext*,
                                       const engram::v1::LookupRowsRequest*,
                                       engram::v1::LookupRowsResponse*) override;
  grpc::ServerUnaryReactor* LookupTokens(grpc::CallbackServerContext*,
                                         const engram::v1::LookupTokensRequest*,
                                         engram::v1::LookupTokensResponse*) override;
  grpc::ServerUnaryReactor* LookupBatch(grpc::CallbackServerContext*,
                                        const engram::v1::LookupBatchRequest*,
                                        engram::v1::LookupBatchResponse*) override;
  grpc::ServerUnaryReactor* DescribeTables(grpc::CallbackServerContext*,
                                           const engram::v1::DescribeTablesRequest*,
                                           engram::v1::DescribeTablesResponse*) override;
  grpc::ServerUnaryReactor* ListVersions(grpc::CallbackServerContext*,
                                         const engram::v1::ListVersionsRequest*,
                                         engram::v1::ListVersionsResponse*) override;
  grpc::ServerUnaryReactor* AcquireLease(grpc::CallbackServerContext*,
                                         const engram::v1::AcquireLeaseRequest*,
                                         engram::v1::AcquireLeaseResponse*) override;
  grpc::ServerUnaryReactor* RenewLeases(grpc::CallbackServerContext*,
                                        const engram::v1::RenewLeasesRequest*,
                                        engram::v1::RenewLeasesResponse*) override;
  grpc::ServerUnaryReactor* ReleaseLeases(grpc::CallbackServerContext*,
                                          const engram::v1::ReleaseLeasesRequest*,
                                          engram::v1::ReleaseLeasesResponse*) override;
  grpc::ServerUnaryReactor* UpdateRows(grpc::CallbackServerContext*,
                                       const engram::v1::UpdateRowsRequest*,
                                       engram::v1::UpdateRowsResponse*) override;
  grpc::ServerUnaryReactor* Publish(grpc::CallbackServerContext*, const engram::v1::PublishRequest*,
                                    engram::v1::PublishResponse*) override;
  grpc::ServerUnaryReactor* Rollback(grpc::CallbackServerContext*,
                                     const engram::v1::RollbackRequest*,
                                     engram::v1::RollbackResponse*) override;
  grpc::ServerUnaryReactor* Prune(grpc::CallbackServerContext*, const engram::v1::PruneRequest*,
                                  engram::v1::PruneResponse*) override;
  grpc::ServerUnaryReactor* ListAudit(grpc::CallbackServerContext*,
                                      const engram::v1::ListAuditRequest*,
                                      engram::v1::ListAuditResponse*) override;

 private:
  absl::Status Rows(const engram::v1::LookupRowsRequest& request,
                    engram::v1::LookupRowsResponse& response);
  absl::Status Tokens(const engram::v1::LookupTokensRequest& request,
                      engram::v1::LookupTokensResponse& response);
  absl::Status Batch(const engram::v1::LookupBatchRequest& request,
                     engram::v1::LookupBatchResponse& response);
  absl::Status Update(const Caller& caller, const engram::v1::UpdateRowsRequest& request,
                      engram::v1::UpdateRowsResponse& response);
  /// Reads rows into `out`, and counts them with how it ended.
  absl::Status Read(const VersionQuery& query, uint32_t layer, std::span<const uint64_t> ids,
                    std::string& version, std::string& out);

  EngramTables& tables_;
  const std::unique_ptr<TokenHasher> hasher_;
  const base::Clock& clock_;
  telemetry::Counter hits_;
  telemetry::Counter misses_;
  telemetry::Counter errors_;
  telemetry::Histogram seconds_;
};

}  // namespace expertmesh::engram_store
