// The fast runtime against the naive reference, and the reference against the shape of its
// formulas.
#include "model/reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/local_experts.h"
#include "tests/support/model_runner.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::model {
namespace {

using test_support::AwkwardConfig;
using test_support::RandomTokens;
using test_support::TempDir;

std::vector<float> FastLogits(const std::string& directory, const std::string& profile,
                              const std::vector<uint32_t>& tokens) {
  base::ThreadPool pool(1);
  const auto model = test_support::LoadModel(directory, profile);
  const auto experts =
      test_support::LoadExperts(directory, profile, {{0, model->config().n_routed_experts}});
  LocalExperts local(*experts, pool);
  const std::vector<std::vector<uint32_t>> lanes = {tokens};
  const size_t chunk = 16;
  const auto traces = test_support::RunLanes(*model, local, pool, lanes, std::span(&chunk, 1));
  std::vector<float> logits(traces[0].logits.size());
  std::memcpy(logits.data(), traces[0].logits.data(), logits.size() * sizeof(float));
  return logits;
}

double Deviation(const std::vector<float>& values) {
  double sum = 0;
  double squares = 0;
  for (const float v : values) {
    sum += v;
    squares += double{v} * double{v};
  }
  const auto n = static_cast<double>(values.size());
  return std::sqrt(squares / n - sum / n * (sum / n));
}

// The largest difference of two logit sets in standard deviations of the first.
double WorstDifference(const std::vector<float>& expected, const std::vector<float>& got) {
  double worst = expected.size() == got.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(expected.size(), got.size()); ++i) {
    worst = std::max(worst, std::abs(double{expected[i]} - double{got[i]}));
  }
  return worst / Deviation(expected);
}

TEST(Reference, FastExactF32AgreesOverPages) {
  for (Config config : {AwkwardConfig(), test_support::TinyV3Config()}) {
    TempDir dir;
    test_support::WriteTinyModel(dir.path(), config, 3);
    const std::vector<uint32_t> tokens = RandomTokens(config, 80, 4);
    const auto reference = ReferenceModel::Load(dir.path());
    ASSERT_TRUE(reference.ok()) << reference.status();
    const std::vector<float> expected = (*reference)->Forward(tokens);
    EXPECT_LE(WorstDifference(expected, FastLogits(dir.path(), "exact-f32", tokens)), 2e-4);
    const double bf16 = WorstDifference(expected, FastLogits(dir.path(), "bf16", tokens));
    EXPECT_GT(bf16, 2e-4) << "bf16 rounds";
  }
}

TEST(Reference, FastAgreesOnBf16Files) {
  Config config = AwkwardConfig();
  config.torch_dtype = "bfloat16";
  config.tie_word_embeddings = true;
  config.n_group = 1;
  config.topk_group = 1;
  TempDir dir;
  test_support::WriteTinyModel(dir.path(), config, 5);
  const std::vector<uint32_t> tokens = RandomTokens(config, 70, 6);
  const auto reference = ReferenceModel::Load(dir.path());
  ASSERT_TRUE(reference.ok()) << reference.status();
  EXPECT_LE(
      WorstDifference((*reference)->Forward(tokens), FastLogits(dir.path(), "exact-f32", tokens)),
      2e-4);
}

TEST(Reference, FastAgreesWithoutQueryRankAndUnderYarn) {
  Config config = AwkwardConfig();
  config.q_lora_rank = 0;
  config.n_shared_experts = 0;
  config.norm_topk_prob = false;
  config.rope_scaling = YarnScaling{.factor = 8, .original_max_position_embeddings = 32};
  config.rope_scaling->mscale = 1.0;
  config.rope_scaling->mscale_all_dim = 0.7;
  TempDir dir;
  test_support::WriteTinyModel(dir.path(), config, 8);
  const std::vector<uint32_t> tokens = RandomTokens(config, 90, 9);
  const auto reference = ReferenceModel::Load(dir.path());
  ASSERT_TRUE(reference.ok()) << reference.status();
  const std::vector<float> expected = (*reference)->Forward(tokens);
  EXPECT_LE(WorstDifference(expected, FastLogits(dir.path(), "exact-f32", tokens)), 2e-4);
}

// docs/model-family.md §8 pitfall 5: rms_norm_eps of another size shows in the logits.
TEST(Reference, RmsNormEpsIsRead) {
  Config config = AwkwardConfig();
  TempDir dir;
  test_support::WriteTinyModel(dir.path(), config, 3);
  config.rms_norm_eps = 1e-6f;
  TempDir other;
  test_support::WriteTinyModel(other.path(), config, 3);
  const std::vector<uint32_t> tokens = RandomTokens(config, 20, 4);
  const auto reference = ReferenceModel::Load(dir.path());
  ASSERT_TRUE(reference.ok());
  EXPECT_GT(
      WorstDifference((*reference)->Forward(tokens), FastLogits(other.path(), "exact-f32", tokens)),
      2e-4);
}

}  // namespace
}  // namespace expertmesh::model
