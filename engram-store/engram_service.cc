#include "engram-store/engram_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engram-store/core/lookup_limits.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::engram_store {

using base::Error;
using base::Reason;
namespace metric = telemetry::metric;

EngramService::EngramService(VersionCatalogue catalogue, const base::Clock& clock,
                             telemetry::Metrics& metrics)
    : catalogue_(std::move(catalogue)),
      clock_(clock),
      misses_(metrics.GetCounter(metric::kEngramLookups, {{"result", "miss"}})),
      errors_(metrics.GetCounter(metric::kEngramLookups, {{"result", "error"}})),
      seconds_(metrics.GetHistogram(metric::kEngramLookupSeconds)) {
  metrics.GetGauge(metric::kEngramVersions).Set(static_cast<double>(catalogue_.size()));
}

// Ends a look-up: `checked` is what was found wrong with the request itself.
grpc::ServerUnaryReactor* EngramService::Answer(grpc::CallbackServerContext* context,
                                                absl::Status checked,
                                                const common::v1::ModelRef& model,
                                                const std::string& version, uint64_t wanted) {
  const base::Instant start = clock_.Now();
  absl::Status status = rpc::RequireDeadline(*context);
  if (status.ok()) status = std::move(checked);
  if (!status.ok()) {
    errors_.Add(static_cast<double>(wanted));
  } else if (catalogue_.Find(model.model(), model.revision(), version) == nullptr) {
    misses_.Add(static_cast<double>(wanted));
    status = Error(
        Reason::kModelHasNoMemory,
        absl::StrCat("this store holds no Engram tables of model ", model.model(), " revision ",
                     model.revision(), " version ", version.empty() ? "(newest)" : version));
  } else {
    errors_.Add(static_cast<double>(wanted));
    status =
        Error(Reason::kUnsupported, "the version is recorded, but this program serves no segments");
  }
  seconds_.Observe(static_cast<double>((clock_.Now() - start).count()) * 1e-6);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* EngramService::LookupRows(grpc::CallbackServerContext* context,
                                                    const engram::v1::LookupRowsRequest* request,
                                                    engram::v1::LookupRowsResponse* /*response*/) {
  const auto count = static_cast<size_t>(request->row_ids_size());
  return Answer(context, CheckRowLookup(count), request->model(), request->version(), count);
}

grpc::ServerUnaryReactor* EngramService::LookupTokens(
    grpc::CallbackServerContext* context, const engram::v1::LookupTokensRequest* request,
    engram::v1::LookupTokensResponse* /*response*/) {
  const auto count = static_cast<size_t>(request->token_ids_size());
  return Answer(context, CheckTokenLookup(count, request->skip()), request->model(),
                request->version(), count);
}

grpc::ServerUnaryReactor* EngramService::ListVersions(
    grpc::CallbackServerContext* context, const engram::v1::ListVersionsRequest* request,
    engram::v1::ListVersionsResponse* response) {
  const absl::Status status = rpc::RequireDeadline(*context);
  if (status.ok()) {
    for (const VersionRecord& v :
         catalogue_.List(request->model().model(), request->model().revision())) {
      auto* out = response->add_versions();
      out->set_version(v.version);
      out->mutable_model()->set_model(v.model);
      out->mutable_model()->set_revision(v.revision);
      out->set_rows(v.rows);
    }
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(status));
  return reactor;
}

}  // namespace expertmesh::engram_store
