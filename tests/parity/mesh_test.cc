// Every golden of a family that this version runs, over a mesh of real processes: router, attention
// worker and three expert workers, joined by gRPC. The bits must be those of one process.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/base/expert_node.h"
#include "services/rpc/channel.h"
#include "tests/parity/compare.h"
#include "tests/parity/report.h"
#include "tests/support/local_mesh.h"

namespace expertmesh::parity {
namespace {

constexpr size_t kPrompts = 20;
constexpr size_t kSteps = 64;
constexpr uint32_t kExpertWorkers = 3;

struct Prompt {
  std::vector<uint32_t> tokens;
  uint64_t start_position = 0;
};

// The golden's own prompts, then random ones of 1 to 48 tokens.
std::vector<Prompt> Prompts(const Golden& golden, uint32_t vocab) {
  std::vector<Prompt> prompts;
  for (const Sequence& s : golden.sequences) {
    const auto end = s.tokens.begin() + static_cast<std::ptrdiff_t>(s.prompt_length);
    prompts.push_back({{s.tokens.begin(), end}, s.start_position});
  }
  std::mt19937 rng(20);
  while (prompts.size() < kPrompts) {
    Prompt& prompt = prompts.emplace_back();
    for (size_t i = 1 + rng() % 48; i > 0; --i) prompt.tokens.push_back(rng() % vocab);
  }
  return prompts;
}

inference::v1::GenerateRequest Request(const Prompt& prompt) {
  inference::v1::GenerateRequest request;
  auto* ids = request.add_segments()->mutable_tokens()->mutable_ids();
  ids->Assign(prompt.tokens.begin(), prompt.tokens.end());
  request.set_max_tokens(kSteps);
  request.mutable_debug()->set_ignore_eos(true);
  request.mutable_debug()->set_return_logits(true);
  request.mutable_debug()->set_first_position(prompt.start_position);
  return request;
}

test_support::MeshSpec Spec(const Golden& golden, const std::string& profile, uint32_t experts) {
  test_support::MeshSpec spec;
  spec.model = golden.checkpoint;
  spec.profile = profile;
  const auto cut = base::CutSlices(experts, kExpertWorkers);
  EXPECT_TRUE(cut.ok()) << cut.status();
  for (const base::ExpertRange& range : *cut) {
    spec.slices.push_back(base::SliceName(std::vector<base::ExpertRange>{range}));
  }
  return spec;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<std::string> Names() {
  const auto names = ListServedGoldens(GoldensDirectory());
  return names.ok() ? *names : std::vector<std::string>();  // parity_test says why
}

class MeshParityTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto golden = LoadGolden(GoldensDirectory(), GetParam());
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
  }

  void CompareWithOneProcess(const std::string& profile) {
    const FastRunner alone(golden_, profile);
    const auto prompts = Prompts(golden_, alone.model().config().vocab_size);
    test_support::MeshSpec spec = Spec(golden_, profile, alone.model().config().n_routed_experts);
    spec.engram = alone.model().config().engram.has_value();
    test_support::LocalMesh mesh(spec);
    ASSERT_TRUE(mesh.WaitReady());
    const auto channel = rpc::MakeChannel(mesh.Address("attention"));
    const auto stub = inference::v1::InferenceService::NewStub(channel);
    std::vector<test_support::Generated> answers(prompts.size());
    std::vector<std::thread> clients;
    for (size_t p = 0; p < prompts.size(); ++p) {
      clients.emplace_back(
          [&, p] { answers[p] = test_support::Generate(*stub, Request(prompts[p])); });
    }
    for (std::thread& client : clients) client.join();
    for (size_t p = 0; p < prompts.size(); ++p) {
      ASSERT_TRUE(answers[p].status.ok()) << answers[p].status;
      const FastRunner::Greedy one =
          alone.Generate(prompts[p].tokens, prompts[p].start_position, kSteps);
      EXPECT_EQ(answers[p].tokens, one.tokens) << profile << ", prompt " << p;
      EXPECT_TRUE(SameBits(answers[p].logits, one.logits)) << profile << ", prompt " << p;
    }
    if (!HasFailure()) {
      Report(golden_, absl::StrCat("mesh, ", profile),
             absl::StrCat("one process, ", prompts.size(), " prompts × ", kSteps, " steps"),
             {{"logits", "same bits"}});
    }
  }

  Golden golden_;
};

TEST_P(MeshParityTest, SameBitsAsOneProcess) {
  CompareWithOneProcess("exact-f32");
  CompareWithOneProcess("bf16");
}

INSTANTIATE_TEST_SUITE_P(Goldens, MeshParityTest, testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace expertmesh::parity
