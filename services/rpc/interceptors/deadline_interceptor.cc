#include "services/rpc/interceptors/deadline_interceptor.h"

#include <grpcpp/client_context.h>

#include <chrono>
#include <string>
#include <utility>

#include "services/base/status.h"
#include "services/rpc/status.h"

namespace expertmesh::rpc {
namespace {

using grpc::experimental::ClientRpcInfo;
using grpc::experimental::InterceptionHookPoints;

// Takes the call over before it leaves the process and plays its end.
class RefuseInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit RefuseInterceptor(std::string method) : method_(std::move(method)) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    const bool first =
        batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA);
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_RECV_MESSAGE)) {
      batch->FailHijackedRecvMessage();
    }
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_RECV_STATUS)) {
      *batch->GetRecvStatus() = ToGrpcStatus(
          base::Error(base::Reason::kDeadlineRequired, "set a deadline on the call of " + method_));
    }
    if (first) {
      batch->Hijack();
    } else {
      batch->Proceed();
    }
  }

 private:
  const std::string method_;
};

}  // namespace

grpc::experimental::Interceptor* DeadlineInterceptorFactory::CreateClientInterceptor(
    ClientRpcInfo* info) {
  const bool has_deadline =
      info->client_context()->deadline() != std::chrono::system_clock::time_point::max();
  if (info->type() != ClientRpcInfo::Type::UNARY || has_deadline) return nullptr;
  return new RefuseInterceptor(info->method());
}

}  // namespace expertmesh::rpc
