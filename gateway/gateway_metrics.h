// The gateway's counters as handles, made once (services/telemetry/metric_catalogue.h).
#pragma once

#include <string>

#include "gateway/core/api_error.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::gateway {

/// Thread-safe. `metrics` outlives it.
class GatewayMetrics {
 public:
  GatewayMetrics(telemetry::Metrics& metrics, std::string model);

  /// An HTTP answer. `endpoint` is one of EndpointLabel()'s.
  void CountAnswer(const std::string& endpoint, int http_status);
  /// An answer that is an error: requests not admitted, bytes that were no request.
  void CountError(const ApiError& error);

  telemetry::Histogram request_duration, time_to_first_token, inter_token_latency;
  telemetry::Counter prompt_tokens, completion_tokens, cached_prompt_tokens, client_disconnects;
  telemetry::Gauge inflight_requests;

 private:
  telemetry::Metrics& metrics_;
  const std::string model_;
};

}  // namespace expertmesh::gateway
