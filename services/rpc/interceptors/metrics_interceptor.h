// Counts every call of a server: started, handled by code, duration.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "services/telemetry/metrics.h"

namespace expertmesh::rpc {

/// The label `method` is "package.Service/Method" for a method that this binary knows, else
/// "other": clients cannot add series. A long-lived stream counts once as started, and once as
/// handled when it ends. Thread-safe. `metrics` outlives the server.
class MetricsInterceptorFactory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit MetricsInterceptorFactory(telemetry::Metrics& metrics) : metrics_(metrics) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  struct Series {
    std::string method;
    telemetry::Counter started;
    telemetry::Histogram duration;
  };
  friend class MetricsInterceptor;
  const Series& SeriesOf(std::string_view path);

  telemetry::Metrics& metrics_;
  std::mutex mutex_;
  std::map<std::string, Series, std::less<>> series_;  // guarded by mutex_; entries stay
};

}  // namespace expertmesh::rpc
