// Client side: a unary call without a deadline is a mistake of ours and is not sent.
#pragma once

#include <grpcpp/support/client_interceptor.h>

namespace expertmesh::rpc {

/// Such a call ends at once with kDeadlineRequired. gRPC fixes the deadline before interceptors
/// run, so none can be added here. Streams are let through: long-lived ones have no deadline.
class DeadlineInterceptorFactory final
    : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo* info) override;
};

}  // namespace expertmesh::rpc
