// Every metric of every process: the one place where a metric gets its name, type, help, labels and
// buckets. docs/metrics.md is printed from this table by the binary metric-catalogue-doc, and a
// test compares the two. Exposed names are "expertmesh_<component>_<name>"; base units; "_total" on
// counters.
//
// No series per layer or expert: the labels' values are closed sets or things an operator names.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

namespace expertmesh::telemetry {

enum class MetricType { kCounter, kGauge, kHistogram };

/// One row of the catalogue. `component` "" means that every component has it. `labels` ends at the
/// first empty name. `buckets` are upper bounds, ascending, of a histogram; +Inf is implied.
struct MetricId {
  std::string_view component;
  std::string_view name;
  MetricType type;
  std::string_view help;
  std::array<std::string_view, 3> labels{};
  std::span<const double> buckets{};
};

/// The components that Metrics may be made for. "example" is services/example, the template
/// service.
inline constexpr std::string_view kComponents[] = {
    "gateway", "router", "attention_worker", "expert_worker", "engram_store", "example"};

namespace bucket {
// Time to first token: from a cached prompt of a tiny model to an hour of queueing.
inline constexpr double kFirstToken[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                         0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                         20,    40,    80,   160,  640,  2560};
inline constexpr double kInterToken[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075,
                                         0.1,   0.15,   0.2,   0.3,  0.4,   0.5,  0.75,
                                         1,     2.5,    5,     10,   20,    40,   80};
inline constexpr double kRequest[] = {0.01, 0.02,  0.04,  0.08,  0.16,  0.32, 0.64, 1.28, 2.56,
                                      5.12, 10.24, 20.48, 40.96, 81.92, 160,  320,  640,  1280};
// One hop inside the mesh, or one layer's work: 20 µs to 10 s.
inline constexpr double kHop[] = {0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001,
                                  0.002,   0.005,   0.01,   0.02,   0.05,   0.1,
                                  0.2,     0.5,     1,      2,      5,      10};
inline constexpr double kLoad[] = {0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800};
inline constexpr double kCount[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000};
}  // namespace bucket

namespace metric {
using enum MetricType;

// Every component.
inline constexpr MetricId kBuildInfo{
    "", "build_info", kGauge, "Always 1; the labels say what was built.", {"version", "commit"}};
inline constexpr MetricId kReady{"", "ready", kGauge, "1 while /readyz answers 200."};
inline constexpr MetricId kDraining{"", "draining", kGauge, "1 from the first stop signal on."};
inline constexpr MetricId kPeerUp{
    "", "peer_up", kGauge, "1 while the connection to a peer is up.", {"role", "peer"}};
inline constexpr MetricId kPeerTransport{"",
                                         "peer_transport",
                                         kGauge,
                                         "1 for the transport that reaches an expert worker now.",
                                         {"role", "peer", "transport"}};
inline constexpr MetricId kRpcServerStarted{
    "", "rpc_server_started_total", kCounter, "RPCs begun by this server.", {"method"}};
inline constexpr MetricId kRpcServerHandled{"",
                                            "rpc_server_handled_total",
                                            kCounter,
                                            "RPCs ended by this server, by gRPC status code.",
                                            {"method", "code"}};
inline constexpr MetricId kRpcServerDuration{
    "",         "rpc_server_duration_seconds",
    kHistogram, "Time from the start of an RPC to its status.",
    {"method"}, bucket::kHop};
inline constexpr MetricId kBadInput{"",
                                    "bad_input_total",
                                    kCounter,
                                    "Refused bytes of a peer, file or client, by error reason.",
                                    {"reason"}};

// Gateway.
inline constexpr MetricId kGatewayRequests{"gateway",
                                           "requests_total",
                                           kCounter,
                                           "HTTP requests answered, by HTTP status code.",
                                           {"endpoint", "model", "code"}};
inline constexpr MetricId kGatewayRequestDuration{
    "gateway",  "request_duration_seconds",
    kHistogram, "Time from the request to its last byte.",
    {},         bucket::kRequest};
inline constexpr MetricId kGatewayTimeToFirstToken{
    "gateway",  "time_to_first_token_seconds",
    kHistogram, "Time from the request to its first token.",
    {},         bucket::kFirstToken};
inline constexpr MetricId kGatewayInterTokenLatency{
    "gateway",  "inter_token_latency_seconds",
    kHistogram, "Time between two tokens of one choice.",
    {},         bucket::kInterToken};
inline constexpr MetricId kGatewayPromptTokens{"gateway", "prompt_tokens_total", kCounter,
                                               "Prompt tokens of admitted requests."};
inline constexpr MetricId kGatewayCompletionTokens{"gateway", "completion_tokens_total", kCounter,
                                                   "Generated tokens sent to clients."};
inline constexpr MetricId kGatewayCachedPromptTokens{
    "gateway", "cached_prompt_tokens_total", kCounter, "Prompt tokens found in the prefix cache."};
inline constexpr MetricId kGatewayInflightRequests{"gateway", "inflight_requests", kGauge,
                                                   "Requests admitted and not yet answered."};
inline constexpr MetricId kGatewayClientDisconnects{"gateway", "client_disconnects_total", kCounter,
                                                    "Clients that left before their answer ended."};
inline constexpr MetricId kGatewayRejected{
    "gateway", "rejected_total", kCounter, "Requests not admitted, by error reason.", {"reason"}};

// Router.
inline constexpr MetricId kRouterPlacementEpoch{"router", "placement_epoch", kGauge,
                                                "Number of the current placement epoch."};
inline constexpr MetricId kRouterRegisteredWorkers{"router",
                                                   "registered_workers",
                                                   kGauge,
                                                   "Workers that hold a Register stream.",
                                                   {"role", "state"}};
inline constexpr MetricId kRouterLeader{"router", "leader", kGauge, "1 while this router leads."};
inline constexpr MetricId kRouterMissingExperts{"router", "missing_experts", kGauge,
                                                "Routed experts that no live worker hosts."};

// Attention worker.
inline constexpr MetricId kAttentionQueuedRequests{"attention_worker", "queued_requests", kGauge,
                                                   "Lanes that wait for a place in the batch."};
inline constexpr MetricId kAttentionRunningRequests{"attention_worker", "running_requests", kGauge,
                                                    "Lanes in the running batch."};
inline constexpr MetricId kAttentionBatchTokens{
    "attention_worker", "batch_tokens", kHistogram, "Tokens of one step.", {}, bucket::kCount};
inline constexpr MetricId kAttentionQueueWait{"attention_worker",
                                              "queue_wait_seconds",
                                              kHistogram,
                                              "Time a lane waited for its first step.",
                                              {},
                                              bucket::kFirstToken};
inline constexpr MetricId kAttentionConstraintDuration{
    "attention_worker",
    "constraint_mask_seconds",
    kHistogram,
    "Time to find the tokens that a constrained answer may go on with.",
    {},
    bucket::kHop};
inline constexpr MetricId kAttentionStepDuration{"attention_worker", "step_duration_seconds",
                                                 kHistogram,         "Time of one step.",
                                                 {"phase"},          bucket::kHop};
inline constexpr MetricId kAttentionDispatchBytes{
    "attention_worker", "dispatch_bytes_total", kCounter, "Payload bytes sent to expert workers."};
inline constexpr MetricId kAttentionDispatchDuration{"attention_worker",
                                                     "dispatch_duration_seconds",
                                                     kHistogram,
                                                     "Time of one call to an expert worker.",
                                                     {"leg"},
                                                     bucket::kHop};
inline constexpr MetricId kAttentionDispatchRetries{"attention_worker", "dispatch_retries_total",
                                                    kCounter, "Expert calls that were sent again."};
inline constexpr MetricId kAttentionGateImbalance{
    "attention_worker", "gate_imbalance_ratio", kGauge,
    "Rows of the most chosen expert over the mean, in the last step."};
inline constexpr MetricId kAttentionMicroBatches{"attention_worker", "micro_batches", kGauge,
                                                 "Micro-batches of the last step."};
inline constexpr MetricId kAttentionDroppedTokens{
    "attention_worker",
    "dropped_tokens_total",
    kCounter,
    "Tokens of steps that failed, by error reason; not where the caller left or time ran out.",
    {"reason"}};
inline constexpr MetricId kAttentionPlacementEpoch{"attention_worker", "placement_epoch", kGauge,
                                                   "Placement epoch of the last step."};
inline constexpr MetricId kAttentionKvCacheUsage{"attention_worker", "kv_cache_usage_ratio", kGauge,
                                                 "Used over all KV pages, 0 to 1."};
inline constexpr MetricId kAttentionKvPagesUsed{"attention_worker", "kv_pages_used", kGauge,
                                                "KV pages that hold a lane's state."};
inline constexpr MetricId kAttentionPrefixCachePages{
    "attention_worker", "prefix_cache_pages", kGauge, "KV pages that the prefix cache keeps."};
inline constexpr MetricId kAttentionPrefixCacheHitTokens{
    "attention_worker", "prefix_cache_hit_tokens_total", kCounter,
    "Prompt tokens whose state was in the prefix cache."};
inline constexpr MetricId kAttentionPrefixCacheEvictions{
    "attention_worker", "prefix_cache_evictions_total", kCounter,
    "KV pages that left the prefix cache to make room."};
inline constexpr MetricId kAttentionPreemptions{
    "attention_worker", "preemptions_total", kCounter,
    "Sequences that lost their KV pages and are recomputed."};
inline constexpr MetricId kAttentionGeneratedTokens{"attention_worker", "generated_tokens_total",
                                                    kCounter, "Tokens sampled."};
inline constexpr MetricId kAttentionPromptTokens{"attention_worker", "prompt_tokens_total",
                                                 kCounter, "Prompt tokens computed."};
inline constexpr MetricId kAttentionExtraPartialRows{
    "attention_worker", "extra_partial_rows_total", kCounter,
    "Partial rows beyond one per row and worker (slices that are not aligned)."};
inline constexpr MetricId kAttentionMemoryRows{
    "attention_worker",
    "memory_rows_total",
    kCounter,
    "Rows of the memory that steps read: from a store's files (mapped), else from the local cache "
    "(hit) or asked for (miss).",
    {"result"}};
inline constexpr MetricId kAttentionMemoryRetries{"attention_worker", "memory_retries_total",
                                                  kCounter,
                                                  "Calls to an Engram store that failed, in whole "
                                                  "or in part, and reads of its files that found a "
                                                  "row damaged."};
inline constexpr MetricId kAttentionMemoryWait{
    "attention_worker",
    "memory_wait_seconds",
    kHistogram,
    "Time a step waited for rows of the memory that were not cached.",
    {},
    bucket::kHop};

// Expert worker.
inline constexpr MetricId kExpertRows{"expert_worker", "rows_total", kCounter, "Rows computed."};
inline constexpr MetricId kExpertRowPairs{"expert_worker", "expert_rows_total", kCounter,
                                          "Pairs of row and chosen expert computed."};
inline constexpr MetricId kExpertBatchRows{"expert_worker",      "batch_rows", kHistogram,
                                           "Rows of one batch.", {},           bucket::kCount};
inline constexpr MetricId kExpertComputeSeconds{
    "expert_worker", "compute_seconds", kHistogram, "Time of one batch.", {}, bucket::kHop};
inline constexpr MetricId kExpertQueueRows{"expert_worker", "queue_rows", kGauge,
                                           "Rows that wait for a batch."};
inline constexpr MetricId kExpertResidentExperts{"expert_worker", "resident_experts", kGauge,
                                                 "Routed experts loaded, per layer."};
inline constexpr MetricId kExpertResidentBytes{"expert_worker", "resident_bytes", kGauge,
                                               "Bytes of expert weights loaded."};
inline constexpr MetricId kExpertSliceLoadSeconds{
    "expert_worker", "slice_load_seconds", kHistogram, "Time to load a slice.", {}, bucket::kLoad};
inline constexpr MetricId kExpertRefused{
    "expert_worker", "refused_total", kCounter, "Calls refused, by error reason.", {"reason"}};
inline constexpr MetricId kExpertPlacementEpoch{"expert_worker", "placement_epoch", kGauge,
                                                "Highest placement epoch seen."};

// Engram store.
inline constexpr MetricId kEngramLookups{
    "engram_store", "lookups_total", kCounter, "Rows looked up: hit, miss or error.", {"result"}};
inline constexpr MetricId kEngramLookupSeconds{
    "engram_store", "lookup_seconds", kHistogram, "Time of one look-up call.", {}, bucket::kHop};
inline constexpr MetricId kEngramVersions{"engram_store", "versions", kGauge,
                                          "Published versions that are served."};
inline constexpr MetricId kEngramLeases{"engram_store", "leases", kGauge,
                                        "Leases on versions that have not ended."};
inline constexpr MetricId kEngramSegmentBytes{"engram_store", "segment_bytes", kGauge,
                                              "Bytes of the mapped segments."};
inline constexpr MetricId kEngramImportRatio{"engram_store", "import_ratio", kGauge,
                                             "Rows imported over all, 0 to 1, in this run."};
inline constexpr MetricId kEngramHotRows{
    "engram_store",
    "hot_rows_total",
    kCounter,
    "Rows asked for in cold mode, found in memory (hit) or not (miss).",
    {"result"}};
inline constexpr MetricId kEngramChanges{"engram_store",
                                         "changes_total",
                                         kCounter,
                                         "Changes of the tables: done or refused.",
                                         {"action", "result"}};
}  // namespace metric

/// All of the above, in the order of the page. A test counts that none is missing.
std::span<const MetricId* const> Catalogue();

/// docs/metrics.md, byte for byte.
std::string CataloguePage();

}  // namespace expertmesh::telemetry
