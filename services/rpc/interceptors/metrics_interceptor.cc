#include "services/rpc/interceptors/metrics_interceptor.h"

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::rpc {
namespace {

using grpc::experimental::InterceptionHookPoints;
namespace metric = telemetry::metric;

class MetricsInterceptor final : public grpc::experimental::Interceptor {
 public:
  MetricsInterceptor(telemetry::Metrics* metrics, std::string method)
      : metrics_(metrics), method_(std::move(method)), start_(std::chrono::steady_clock::now()) {
    metrics_->GetCounter(metric::kRpcServerStarted, {{"method", method_}}).Add();
  }

  ~MetricsInterceptor() override {
    // A call that the client broke off never sends a status.
    if (!handled_) Handled("CANCELLED");
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = batch->GetSendStatus();
      Handled(absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())));
    }
    batch->Proceed();
  }

 private:
  void Handled(const std::string& code) {
    handled_ = true;
    metrics_->GetCounter(metric::kRpcServerHandled, {{"method", method_}, {"code", code}}).Add();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    metrics_->GetHistogram(metric::kRpcServerDuration, {{"method", method_}})
        .Observe(elapsed.count());
  }

  telemetry::Metrics* metrics_;
  const std::string method_;
  const std::chrono::steady_clock::time_point start_;
  bool handled_ = false;
};

}  // namespace

grpc::experimental::Interceptor* MetricsInterceptorFactory::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  // Only registered methods reach here, so the label's values are a closed set.
  return new MetricsInterceptor(metrics_, info->method());
}

}  // namespace expertmesh::rpc
