#include "services/rpc/interceptors/reason_interceptor.h"

#include "services/rpc/status.h"

namespace expertmesh::rpc {
namespace {

class ReasonInterceptor final : public grpc::experimental::Interceptor {
 public:
  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = batch->GetSendStatus();
      // What was not found, only its sender knows: gRPC's health service says so of a name.
      const bool unnamed = status.error_code() == grpc::StatusCode::NOT_FOUND;
      if (!status.ok() && !unnamed && status.error_details().empty()) {
        batch->ModifySendStatus(ToGrpcStatus(FromGrpcStatus(status)));
      }
    }
    batch->Proceed();
  }
};

}  // namespace

grpc::experimental::Interceptor* ReasonInterceptorFactory::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* /*info*/) {
  return new ReasonInterceptor();
}

}  // namespace expertmesh::rpc
