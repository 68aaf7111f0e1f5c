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
      if (!status.ok() && status.error_details().empty()) {
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
