// engram.v1 over gRPC.
#pragma once

#include "absl/status/status.h"
#include "engram-store/core/version_catalogue.h"
#include "expertmesh/engram/v1/engram.grpc.pb.h"
#include "services/base/clock.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::engram_store {

/// Thread-safe. A look-up of a model without a version answers MODEL_HAS_NO_MEMORY.
class EngramService final : public engram::v1::EngramService::CallbackService {
 public:
  /// The catalogue is fixed for the life of the service; the clock and the metrics outlive it.
  EngramService(VersionCatalogue catalogue, const base::Clock& clock, telemetry::Metrics& metrics);

  grpc::ServerUnaryReactor* LookupRows(grpc::CallbackServerContext* context,
                                       const engram::v1::LookupRowsRequest* request,
                                       engram::v1::LookupRowsResponse* response) override;
  grpc::ServerUnaryReactor* LookupTokens(grpc::CallbackServerContext* context,
                                         const engram::v1::LookupTokensRequest* request,
                                         engram::v1::LookupTokensResponse* response) override;
  grpc::ServerUnaryReactor* ListVersions(grpc::CallbackServerContext* context,
                                         const engram::v1::ListVersionsRequest* request,
                                         engram::v1::ListVersionsResponse* response) override;

  const VersionCatalogue& catalogue() const { return catalogue_; }

 private:
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, absl::Status checked,
                                   const common::v1::ModelRef& model, const std::string& version,
                                   uint64_t wanted);

  const VersionCatalogue catalogue_;
  const base::Clock& clock_;
  telemetry::Counter misses_;
  telemetry::Counter errors_;
  telemetry::Histogram seconds_;
};

}  // namespace expertmesh::engram_store
