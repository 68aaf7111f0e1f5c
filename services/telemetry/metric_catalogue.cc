#include "services/telemetry/metric_catalogue.h"

#include "absl/strings/str_cat.h"

namespace expertmesh::telemetry {
namespace {

using namespace metric;  // NOLINT: the table below lists the whole namespace

constexpr const MetricId* kCatalogue[] = {
    &kBuildInfo,
    &kReady,
    &kDraining,
    &kPeerUp,
    &kPeerTransport,
    &kRpcServerStarted,
    &kRpcServerHandled,
    &kRpcServerDuration,
    &kBadInput,

    &kGatewayRequests,
    &kGatewayRequestDuration,
    &kGatewayTimeToFirstToken,
    &kGatewayInterTokenLatency,
    &kGatewayPromptTokens,
    &kGatewayCompletionTokens,
    &kGatewayCachedPromptTokens,
    &kGatewayInflightRequests,
    &kGatewayClientDisconnects,
    &kGatewayRejected,

    &kRouterPlacementEpoch,
    &kRouterRegisteredWorkers,
    &kRouterLeader,
    &kRouterMissingExperts,

    &kAttentionQueuedRequests,
    &kAttentionRunningRequests,
    &kAttentionBatchTokens,
    &kAttentionQueueWait,
    &kAttentionConstraintDuration,
    &kAttentionStepDuration,
    &kAttentionDispatchBytes,
    &kAttentionDispatchDuration,
    &kAttentionDispatchRetries,
    &kAttentionGateImbalance,
    &kAttentionMicroBatches,
    &kAttentionDroppedTokens,
    &kAttentionPlacementEpoch,
    &kAttentionKvCacheUsage,
    &kAttentionKvPagesUsed,
    &kAttentionPrefixCachePages,
    &kAttentionPrefixCacheHitTokens,
    &kAttentionPrefixCacheEvictions,
    &kAttentionPreemptions,
    &kAttentionGeneratedTokens,
    &kAttentionPromptTokens,
    &kAttentionExtraPartialRows,
    &kAttentionMemoryRows,
    &kAttentionMemoryRetries,
    &kAttentionMemoryWait,

    &kExpertRows,
    &kExpertRowPairs,
    &kExpertBatchRows,
    &kExpertComputeSeconds,
    &kExpertQueueRows,
    &kExpertResidentExperts,
    &kExpertResidentBytes,
    &kExpertSliceLoadSeconds,
    &kExpertRefused,
    &kExpertPlacementEpoch,

    &kEngramLookups,
    &kEngramLookupSeconds,
    &kEngramVersions,
    &kEngramLeases,
    &kEngramSegmentBytes,
    &kEngramImportRatio,
    &kEngramHotRows,
    &kEngramChanges,
};

absl::string_view Abseil(std::string_view text) { return {text.data(), text.size()}; }

std::string_view TypeName(MetricType type) {
  switch (type) {
    case kCounter:
      return "counter";
    case kGauge:
      return "gauge";
    case kHistogram:
      return "histogram";
  }
  return "";
}

std::string LabelColumn(const MetricId& id) {
  std::string text;
  for (std::string_view label : id.labels) {
    if (!label.empty()) absl::StrAppend(&text, text.empty() ? "" : ", ", "`", Abseil(label), "`");
  }
  return text;
}

std::string BucketColumn(const MetricId& id) {
  std::string text;
  for (double bound : id.buckets) absl::StrAppend(&text, text.empty() ? "" : " ", bound);
  return text;
}

void AppendSection(std::string_view component, std::string& page) {
  if (component.empty()) {
    absl::StrAppend(
        &page, "\n## Every process\n",
        "Exposed as `expertmesh_<component>_<name>`, e.g. `expertmesh_gateway_ready`.\n\n");
  } else {
    absl::StrAppend(&page, "\n## ", Abseil(component), "\n", "Exposed as `expertmesh_",
                    Abseil(component), "_<name>`.\n\n");
  }
  absl::StrAppend(&page, "| name | type | labels | meaning | buckets |\n|---|---|---|---|---|\n");
  for (const MetricId* id : kCatalogue) {
    if (id->component != component) continue;
    absl::StrAppend(&page, "| `", Abseil(id->name), "` | ", Abseil(TypeName(id->type)), " | ",
                    LabelColumn(*id), " | ", Abseil(id->help));
    absl::StrAppend(&page, " | ", BucketColumn(*id), " |\n");
  }
}

}  // namespace

std::span<const MetricId* const> Catalogue() { return kCatalogue; }

std::string CataloguePage() {
  std::string page =
      "# Metrics\n"
      "Printed by `metric-catalogue-doc` from `services/telemetry/metric_catalogue.h`; a test "
      "compares the\n"
      "two, so edit the header. Every process serves its metrics at `/metrics` of its admin port, "
      "in\n"
      "Prometheus' text format. Units are base units (seconds, bytes, rows, tokens). A metric "
      "without\n"
      "labels is there, at 0, from the start of the process. There are no series per layer or "
      "expert.\n";
  AppendSection("", page);
  for (std::string_view component : kComponents) {
    if (component != "example") AppendSection(component, page);
  }
  return page;
}

}  // namespace expertmesh::telemetry
