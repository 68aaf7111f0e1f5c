// Invariant 4 over real processes: the bits of every step's logits and of every token's lane state
// do not depend on workers, placement, transport, threads, batch or prefill chunk.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <random>
#include <thread>

#include "services/base/expert_node.h"
#include "services/rpc/channel.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

constexpr int kPrompts = 20;
constexpr int kSteps = 64;
constexpr uint32_t kExperts = 32;

// 20 prompts of 1 to 300 tokens; the same in every run.
std::vector<inference::v1::GenerateRequest> Requests(float temperature) {
  std::mt19937 rng(20);
  std::vector<inference::v1::GenerateRequest> requests;
  for (int p = 0; p < kPrompts; ++p) {
    auto& request = requests.emplace_back();
    const size_t length = p == 0 ? 1 : p == 1 ? 300 : 1 + rng() % 300;
    for (size_t i = 0; i < length; ++i) {
      request.add_segments()->mutable_tokens()->add_ids(static_cast<uint32_t>(rng() % 512));
    }
    request.set_max_tokens(kSteps);
    request.mutable_sampling()->set_temperature(temperature);
    request.mutable_sampling()->set_top_p(0.9f);
    request.mutable_sampling()->set_seed(1000 + static_cast<uint64_t>(p));
    request.mutable_debug()->set_ignore_eos(true);
    request.mutable_debug()->set_return_logits_hash(true);
    request.mutable_debug()->set_return_state_hash(true);
  }
  return requests;
}

// What one configuration changes against the base.
struct Config {
  std::vector<std::string> slices;  // empty = inproc
  std::string transport = "grpc";   // or "shm"
  int threads = 1;
  int expert_threads = 1;
  int batch = 16;
  int chunk = 64;
  int parts = 1;  // micro-batches; 0 = as measured
  std::string Name() const {
    std::string name = slices.empty() ? "inproc" : "";
    for (const std::string& slice : slices) name += "[" + slice + "]";
    if (!slices.empty()) name += " " + transport;
    return name + " threads " + std::to_string(threads) + "/" + std::to_string(expert_threads) +
           " batch " + std::to_string(batch) + " chunk " + std::to_string(chunk) + " parts " +
           std::to_string(parts);
  }
};

Config Sliced(std::vector<std::string> slices) {
  Config config;
  config.slices = std::move(slices);
  return config;
}

std::vector<std::string> Even(uint32_t pools) {
  std::vector<std::string> slices;
  const auto cut = base::CutSlices(kExperts, pools);
  if (!cut.ok()) std::abort();
  for (const base::ExpertRange& r : *cut) {
    slices.push_back(base::SliceName(std::vector<base::ExpertRange>{r}));
  }
  return slices;
}

// Every expert goes to a random worker; no worker stays empty.
std::vector<std::string> Random(std::mt19937& rng, uint32_t pools) {
  std::vector<std::vector<base::ExpertRange>> experts(pools);
  for (uint32_t e = 0; e < kExperts; ++e) {
    const uint32_t pool = e < pools ? e : rng() % pools;
    experts[pool].push_back({e, e + 1});
  }
  std::vector<std::string> slices;
  for (const auto& ranges : experts) slices.push_back(base::SliceName(ranges));
  return slices;
}

const std::vector<std::string> kHole = {"0-3,8-31", "4-7"};

struct Subject {
  std::string model;
  std::string profile;
};

// All requests at once; `--max-batch` decides how many share a step.
std::vector<Generated> RunAll(const Config& config, const Subject& subject, float temperature) {
  MeshSpec spec;
  spec.model = TinyModel(subject.model);
  spec.profile = subject.profile;
  spec.slices = config.slices;
  spec.transport = config.transport;
  spec.engram = subject.model == "tiny" && !config.slices.empty();  // it has a memory
  spec.attention_threads = config.threads;
  spec.expert_threads = config.expert_threads;
  spec.attention_flags = {"--max-batch",     std::to_string(config.batch),
                          "--prefill-chunk", std::to_string(config.chunk),
                          "--micro-batches", std::to_string(config.parts),
                          "--step-tokens",   std::to_string(std::max(512, config.chunk))};
  LocalMesh mesh(spec);
  std::vector<Generated> results(kPrompts);
  if (!mesh.WaitReady()) {
    ADD_FAILURE() << "the mesh did not start: " << config.Name();
    return results;
  }
  const auto channel = rpc::MakeChannel(mesh.Address("attention"));
  const auto stub = inference::v1::InferenceService::NewStub(channel);
  const auto requests = Requests(temperature);
  std::vector<std::thread> clients;
  for (int p = 0; p < kPrompts; ++p) {
    clients.emplace_back([&, p] { results[p] = Generate(*stub, requests[p]); });
  }
  for (std::thread& client : clients) client.join();
  for (const Generated& result : results) EXPECT_TRUE(result.status.ok()) << result.status;
  return results;
}

void ExpectSame(const std::vector<Generated>& base, const std::vector<Generated>& other,
                const std::string& what) {
  for (int p = 0; p < kPrompts; ++p) {
    ASSERT_EQ(base[p].logits_hashes.size(), static_cast<size_t>(kSteps));
    ASSERT_EQ(base[p].logits_hashes, other[p].logits_hashes) << what << ": logits, prompt " << p;
    ASSERT_EQ(base[p].tokens, other[p].tokens) << what << ": tokens, prompt " << p;
    ASSERT_EQ(base[p].state_hashes, other[p].state_hashes) << what << ": lane state, prompt " << p;
  }
}

class BitsTest : public testing::TestWithParam<Subject> {
 protected:
  void Compare(const std::vector<Config>& configs, float temperature) {
    const std::vector<Generated> base = RunAll(Config{}, GetParam(), temperature);
    // Hashes of different steps differ, or the comparison would prove nothing.
    ASSERT_NE(base[1].logits_hashes.front(), base[1].logits_hashes.back());
    for (const Config& config : configs) {
      ExpectSame(base, RunAll(config, GetParam(), temperature), config.Name());
      if (HasFatalFailure()) return;
    }
  }
};

TEST_P(BitsTest, NumberAndPlacementOfExpertWorkers) {
  std::mt19937 rng(7);
  std::vector<Config> configs;
  for (uint32_t pools : {1, 2, 3, 4, 8}) configs.push_back(Sliced(Even(pools)));
  configs.push_back(Sliced(Random(rng, 3)));
  configs.push_back(Sliced(kHole));
  for (size_t i = 1; i < configs.size(); i += 2) configs[i].transport = "shm";
  Compare(configs, 0.0f);
}

TEST_P(BitsTest, Transports) {
  std::vector<Config> configs;
  for (const char* transport : {"grpc", "shm", "auto"}) {
    configs.push_back(Sliced(Even(2)));
    configs.back().transport = transport;
  }
  configs.push_back(configs[1]);
  configs.back().chunk = 512;
  Compare(configs, 0.0f);
}

TEST_P(BitsTest, ThreadsBatchPrefillChunkAndMicroBatches) {
  std::vector<Config> configs(7);
  configs[5].parts = 2;
  configs[6] = Sliced(Even(3));
  configs[6].parts = 4;
  configs[0].threads = configs[0].expert_threads = 2;
  configs[1].batch = 1;
  configs[2].chunk = 1;
  configs[3].chunk = 7;
  configs[4].chunk = 512;
  Compare(configs, 0.0f);
}

class RandomBitsTest : public BitsTest {};
TEST_P(RandomBitsTest, ThirtyTwoCombinations) {
  std::mt19937 rng(32);
  const auto pick = [&](auto... values) {
    const std::array options{values...};
    return options[rng() % options.size()];
  };
  std::vector<Config> configs;
  for (int i = 0; i < 32; ++i) {
    Config config;
    const uint32_t pools = pick(1u, 2u, 3u, 4u, 8u);
    switch (rng() % 4) {
      case 0:
        config.slices = Even(pools);
        break;
      case 1:
        config.slices = Random(rng, pools);
        break;
      case 2:
        config.slices = kHole;
        break;
      default:
        break;  // inproc
    }
    config.transport = pick("grpc", "shm");
    config.threads = pick(1, 2);
    config.expert_threads = pick(1, 2);
    config.batch = pick(1, 16);
    config.chunk = pick(1, 7, 64, 512);
    config.parts = pick(0, 1, 2, 3);
    configs.push_back(config);
  }
  Compare(configs, 0.8f);  // sampled with seeds: a replay draws the same tokens
}

std::string Name(const testing::TestParamInfo<Subject>& info) {
  std::string name = info.param.model + "_" + info.param.profile;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, BitsTest,
                         testing::Values(Subject{"tiny-v3", "exact-f32"},
                                         Subject{"tiny-v3", "bf16"}, Subject{"tiny", "exact-f32"},
                                         Subject{"tiny", "bf16"}, Subject{"tiny", "int8"}),
                         Name);
INSTANTIATE_TEST_SUITE_P(Models, RandomBitsTest,
                         testing::Values(Subject{"tiny-v3", "exact-f32"}, Subject{"tiny", "bf16"},
                                         Subject{"tiny-v3", "int8"}),
                         Name);

}  // namespace
}  // namespace expertmesh::test_support
