// A call whose tenant, principal or request id breaks docs/protocol.md §4 ends with kBadMetadata.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include "services/telemetry/metrics.h"

namespace expertmesh::rpc {

/// An interceptor of gRPC cannot end a call before its handler, so the status is replaced when it
/// is sent: no caller can mistake such a call for a success. Handlers that act on the identity ask
/// IdentityOf first. `metrics` (may be null) outlives the server; counts bad_input_total.
class IdentityInterceptorFactory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit IdentityInterceptorFactory(telemetry::Metrics* metrics);
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  telemetry::Counter refused_;
};

}  // namespace expertmesh::rpc
