// Counts every call of a server: started, handled by code, duration.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include "services/telemetry/metrics.h"

namespace expertmesh::rpc {

/// `metrics` outlives the server. A long-lived stream counts once, when it ends.
class MetricsInterceptorFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit MetricsInterceptorFactory(telemetry::Metrics* metrics) : metrics_(metrics) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  telemetry::Metrics* metrics_;
};

}  // namespace expertmesh::rpc
