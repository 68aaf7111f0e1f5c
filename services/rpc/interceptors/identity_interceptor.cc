#include "services/rpc/interceptors/identity_interceptor.h"

#include <string>

#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::rpc {
namespace {

using grpc::experimental::InterceptionHookPoints;

class IdentityInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit IdentityInterceptor(telemetry::Counter refused) : refused_(refused) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      status_ = IdentityFrom(*batch->GetRecvInitialMetadata()).status();
      if (!status_.ok()) refused_.Add();
    }
    if (!status_.ok() &&
        batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      batch->ModifySendStatus(ToGrpcStatus(status_));
    }
    batch->Proceed();
  }

 private:
  telemetry::Counter refused_;
  absl::Status status_;
};

}  // namespace

IdentityInterceptorFactory::IdentityInterceptorFactory(telemetry::Metrics* metrics) {
  if (metrics == nullptr) return;
  refused_ =
      metrics->GetCounter(telemetry::metric::kBadInput,
                          {{"reason", std::string(base::ReasonName(base::Reason::kBadMetadata))}});
}

grpc::experimental::Interceptor* IdentityInterceptorFactory::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* /*info*/) {
  return new IdentityInterceptor(refused_);
}

}  // namespace expertmesh::rpc
