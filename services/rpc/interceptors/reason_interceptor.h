// Every non-OK status leaves with a google.rpc.ErrorInfo, also one that a library made.
#pragma once

#include <grpcpp/support/server_interceptor.h>

namespace expertmesh::rpc {

class ReasonInterceptorFactory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;
};

}  // namespace expertmesh::rpc
