#include "services/rpc/interceptors/metrics_interceptor.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <chrono>

#include "absl/status/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::rpc {

namespace metric = telemetry::metric;

namespace {

constexpr char kOther[] = "other";

// "/package.Service/Method" → "package.Service/Method", or kOther.
std::string MethodLabel(std::string_view path) {
  if (path.empty() || path.front() != '/') return kOther;
  std::string label(path.substr(1));
  std::string full_name = label;
  std::replace(full_name.begin(), full_name.end(), '/', '.');
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  return pool->FindMethodByName(full_name) == nullptr ? kOther : label;
}

std::string CodeLabel(int code) {
  const std::string name = absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
  return name.empty() ? "UNKNOWN" : name;
}

}  // namespace

class MetricsInterceptor final : public grpc::experimental::Interceptor {
 public:
  MetricsInterceptor(telemetry::Metrics& metrics, const MetricsInterceptorFactory::Series& series)
      : metrics_(metrics), series_(series), start_(std::chrono::steady_clock::now()) {
    telemetry::Counter started = series_.started;
    started.Add();
  }

  ~MetricsInterceptor() override {
    // A call that broke off may end without a status.
    if (!handled_) Handled(static_cast<int>(absl::StatusCode::kCancelled));
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      Handled(batch->GetSendStatus().error_code());
    }
    batch->Proceed();
  }

 private:
  void Handled(int code) {
    if (handled_) return;
    handled_ = true;
    metrics_
        .GetCounter(metric::kRpcServerHandled,
                    {{"method", series_.method}, {"code", CodeLabel(code)}})
        .Add();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    telemetry::Histogram duration = series_.duration;
    duration.Observe(elapsed.count());
  }

  telemetry::Metrics& metrics_;
  const MetricsInterceptorFactory::Series& series_;
  const std::chrono::steady_clock::time_point start_;
  bool handled_ = false;
};

const MetricsInterceptorFactory::Series& MetricsInterceptorFactory::SeriesOf(
    std::string_view path) {
  std::lock_guard lock(mutex_);
  const auto known = series_.find(path);
  if (known != series_.end()) return known->second;
  const std::string label = MethodLabel(path);
  // Only known methods are remembered by their path: what clients make up must not grow the map.
  const std::string key = label == kOther ? label : std::string(path);
  const auto [entry, added] = series_.try_emplace(key);
  if (added) {
    entry->second = {label, metrics_.GetCounter(metric::kRpcServerStarted, {{"method", label}}),
                     metrics_.GetHistogram(metric::kRpcServerDuration, {{"method", label}})};
  }
  return entry->second;
}

grpc::experimental::Interceptor* MetricsInterceptorFactory::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  return new MetricsInterceptor(metrics_, SeriesOf(info->method()));
}

}  // namespace expertmesh::rpc
