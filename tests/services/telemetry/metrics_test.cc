#include "services/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "services/telemetry/build_info.h"

namespace expertmesh::telemetry {
namespace {

using testing::HasSubstr;
using testing::Not;

// What `promtool check metrics` looks at: each sample's family has HELP and TYPE before it, names
// have no colon, counters end in _total, no series comes twice.
void Lint(const std::string& text) {
  const std::regex sample(R"(^([a-z_][a-z0-9_]*)(\{.*\})? (\S+)$)");
  std::map<std::string, std::string> types;
  std::set<std::string> helped;
  std::set<std::string> series;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, keyword, name, rest;
    if (line.starts_with("#")) {
      words >> hash >> keyword >> name >> rest;
      ASSERT_FALSE(rest.empty()) << line;
      const bool fresh =
          keyword == "HELP" ? helped.insert(name).second : types.emplace(name, rest).second;
      EXPECT_TRUE(fresh) << line;
      EXPECT_TRUE(keyword == "HELP" || rest != "counter" || name.ends_with("_total")) << line;
      continue;
    }
    std::smatch match;
    ASSERT_TRUE(std::regex_match(line, match, sample)) << line;
    EXPECT_TRUE(series.insert(match[1].str() + match[2].str()).second) << line;
    const std::string family =
        std::regex_replace(match[1].str(), std::regex("_(bucket|sum|count)$"), "");
    const std::string& key = types.contains(match[1].str()) ? match[1].str() : family;
    EXPECT_TRUE(helped.contains(key)) << line;
    EXPECT_TRUE(types.contains(key)) << line;
    EXPECT_TRUE(key.starts_with("expertmesh_")) << line;
  }
  EXPECT_FALSE(series.empty());
}

TEST(Metrics, EveryComponentPassesTheLint) {
  for (std::string_view component : kComponents) {
    Metrics metrics{std::string(component)};
    metrics.GetGauge(metric::kPeerUp, {{"role", "router"}, {"peer", "a \"quoted\"\nname\\"}})
        .Set(1);
    metrics.GetHistogram(metric::kRpcServerDuration, {{"method", "m"}}).Observe(0.1);
    Lint(metrics.Serialize());
  }
}

TEST(Metrics, ValuesComeOutUnderTheirExposedNames) {
  Metrics metrics("expert-worker");
  EXPECT_EQ(metrics.component(), "expert_worker");
  Counter rows = metrics.GetCounter(metric::kExpertRows);
  rows.Add();
  rows.Add(41);
  metrics.GetGauge(metric::kExpertQueueRows).Set(7);
  metrics.GetGauge(metric::kExpertQueueRows).Add(-3);
  metrics.GetHistogram(metric::kExpertBatchRows).Observe(3);
  const std::string text = metrics.Serialize();
  EXPECT_THAT(text, HasSubstr("\nexpertmesh_expert_worker_rows_total 42\n"));
  EXPECT_THAT(text, HasSubstr("\nexpertmesh_expert_worker_queue_rows 4\n"));
  EXPECT_THAT(text, HasSubstr("\nexpertmesh_expert_worker_batch_rows_bucket{le=\"2\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("\nexpertmesh_expert_worker_batch_rows_bucket{le=\"5\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\nexpertmesh_expert_worker_batch_rows_sum 3\n"));
}

TEST(Metrics, UnlabelledOnesAreThereAtZeroAndBuildInfoAtOne) {
  Metrics metrics("gateway");
  const std::string text = metrics.Serialize();
  EXPECT_THAT(text, HasSubstr("\nexpertmesh_gateway_ready 0\n"));
  EXPECT_THAT(text, HasSubstr("\nexpertmesh_gateway_prompt_tokens_total 0\n"));
  EXPECT_THAT(text, HasSubstr("\nexpertmesh_gateway_request_duration_seconds_count 0\n"));
  const BuildInfo build = GetBuildInfo();
  EXPECT_FALSE(build.commit.empty());
  EXPECT_THAT(text, HasSubstr("version=\"" + std::string(build.version) + "\""));
  EXPECT_THAT(text, Not(HasSubstr("expertmesh_router_")));
  EXPECT_THAT(text, Not(HasSubstr("expertmesh_gateway_leader")));
}

TEST(Metrics, SameLabelsAreTheSameSeriesAndGaugesCanGo) {
  Metrics metrics("router");
  const Metrics::Labels peer = {{"role", "expert-worker"}, {"peer", "pool-0-a"}};
  metrics.GetGauge(metric::kPeerUp, peer).Set(1);
  metrics.GetGauge(metric::kPeerUp, peer).Add(1);
  EXPECT_THAT(metrics.Serialize(), HasSubstr("peer=\"pool-0-a\",role=\"expert-worker\"} 2\n"));
  metrics.RemoveGauge(metric::kPeerUp, peer);
  metrics.RemoveGauge(metric::kPeerUp, peer);
  EXPECT_THAT(metrics.Serialize(), Not(HasSubstr("pool-0-a")));
}

TEST(Metrics, HandlesAreThreadSafeAndEmptyOnesCountNothing) {
  Metrics metrics("engram_store");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n)
        metrics.GetCounter(metric::kEngramLookups, {{"result", "hit"}}).Add();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(metrics.Serialize(), HasSubstr("lookups_total{result=\"hit\"} 4000\n"));
  Counter().Add();
  Gauge().Set(1);
  Gauge().Add(1);
  Histogram().Observe(1);
}

using MetricsDeathTest = testing::Test;

TEST(MetricsDeathTest, MistakesOfOursAbortWithTheNames) {
  Metrics metrics("gateway");
  EXPECT_DEATH(Metrics("no-such-component"), "no_such_component");
  EXPECT_DEATH(metrics.GetCounter(metric::kExpertRows), "gateway.*expert_worker/rows_total");
  // The router has a metric of the same name.
  EXPECT_DEATH(Metrics("router").GetGauge(metric::kExpertPlacementEpoch),
               "router.*expert_worker/placement_epoch");
  EXPECT_DEATH(metrics.GetGauge(metric::kGatewayPromptTokens), "prompt_tokens_total");
  EXPECT_DEATH(metrics.GetCounter(metric::kGatewayRejected), "gateway_rejected_total");
  EXPECT_DEATH(metrics.GetCounter(metric::kGatewayRejected, {{"why", "x"}}), "why=x");
  EXPECT_DEATH(metrics.GetCounter(metric::kGatewayPromptTokens, {{"reason", "x"}}), "reason=x");
}

}  // namespace
}  // namespace expertmesh::telemetry
