#include "gateway/gateway_metrics.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::gateway {

namespace metric = telemetry::metric;

GatewayMetrics::GatewayMetrics(telemetry::Metrics& metrics, std::string model)
    : request_duration(metrics.GetHistogram(metric::kGatewayRequestDuration)),
      time_to_first_token(metrics.GetHistogram(metric::kGatewayTimeToFirstToken)),
      inter_token_latency(metrics.GetHistogram(metric::kGatewayInterTokenLatency)),
      prompt_tokens(metrics.GetCounter(metric::kGatewayPromptTokens)),
      completion_tokens(metrics.GetCounter(metric::kGatewayCompletionTokens)),
      cached_prompt_tokens(metrics.GetCounter(metric::kGatewayCachedPromptTokens)),
      client_disconnects(metrics.GetCounter(metric::kGatewayClientDisconnects)),
      inflight_requests(metrics.GetGauge(metric::kGatewayInflightRequests)),
      metrics_(metrics),
      model_(std::move(model)) {}

void GatewayMetrics::CountAnswer(const std::string& endpoint, int http_status) {
  metrics_
      .GetCounter(
          metric::kGatewayRequests,
          {{"endpoint", endpoint}, {"model", model_}, {"code", std::to_string(http_status)}})
      .Add();
}

void GatewayMetrics::CountError(const ApiError& error) {
  const std::string name = absl::AsciiStrToUpper(error.code);
  // Codes that are no reasons of the mesh are all about the bytes of the request.
  const base::Reason reason = base::ReasonFromName(name);
  if (error.http_status == 429 || error.http_status >= 500) {
    metrics_.GetCounter(metric::kGatewayRejected, {{"reason", name}}).Add();
  } else if (error.http_status == 400 || error.http_status == 413 || error.http_status == 431) {
    const base::Reason shown =
        reason == base::Reason::kUnspecified ? base::Reason::kInvalidArgument : reason;
    metrics_.GetCounter(metric::kBadInput, {{"reason", std::string(base::ReasonName(shown))}})
        .Add();
  }
}

}  // namespace expertmesh::gateway
