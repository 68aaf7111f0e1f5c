// docs/model-family.md §7.1 on the runtime's own arithmetic: mixing alone makes no stream larger,
// however many maps follow each other. The other statements: tools/stability.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "model/blocks/hyper_connection.h"
#include "model/checkpoint.h"
#include "model/kernels/kernel_table.h"
#include "model/weight_loader.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

constexpr size_t kMaps = 116;  // two sublayers of 58 layers
constexpr size_t kRows = 64;

TEST(Stability, NoStreamGrowsByMixing) {
  test_support::TempDir dir;
  WriteOptions options;
  options.directory = dir / "tiny";
  ASSERT_TRUE(WriteModel(*FindPreset("tiny"), options).ok());
  const Config config = FindPreset("tiny")->config;
  const auto checkpoint = Checkpoint::Open(options.directory);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const Profile profile = *ParseProfile("exact-f32");
  WeightArena arena;
  const WeightLoader loader(**checkpoint, profile, arena);
  std::vector<HyperConnection> maps;
  for (uint32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    for (const char* part : {".attn_hc.", ".ffn_hc."}) {
      auto map =
          HyperConnection::Load(loader, config, "model.layers." + std::to_string(layer) + part);
      ASSERT_TRUE(map.ok()) << map.status();
      maps.push_back(*std::move(map));
    }
  }
  base::ThreadPool pool(1);
  const Exec exec{*AvailableKernels().back(), profile, pool};
  const size_t hidden = config.hidden_size;
  const size_t streams = config.hc_mult;
  const auto largest = [&](const std::vector<float>& x, size_t row) {
    double most = 0;
    for (size_t s = 0; s < streams; ++s) {
      double sum = 0;
      for (size_t c = 0; c < hidden; ++c) {
        const double v = x[(row * streams + s) * hidden + c];
        sum += v * v;
      }
      most = std::max(most, sum);
    }
    return std::sqrt(most);
  };
  std::mt19937_64 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(kRows * streams * hidden);
  for (float& v : x) v = 100.0f * normal(random);
  std::vector<double> before(kRows);
  for (size_t row = 0; row < kRows; ++row) before[row] = largest(x, row);
  const std::vector<float> nothing(kRows * hidden, 0.0f);
  std::vector<float> u(kRows * hidden);
  MixScratch scratch;
  for (size_t i = 0; i < kMaps; ++i) {
    const HyperConnection& map = maps[i % maps.size()];
    map.Collapse(exec, x.data(), kRows, scratch, u.data());
    map.Expand(exec, nothing.data(), kRows, scratch, x);
    for (size_t row = 0; row < kRows; ++row) {
      // A column sums to less than 1 by eps; float32 rounds by a few units in the last place.
      const double now = largest(x, row);
      EXPECT_LE(now, before[row] * (1 + 1e-6)) << "map " << i << ", row " << row;
      before[row] = now;
    }
  }
  for (size_t row = 0; row < kRows; ++row) EXPECT_GT(before[row], 1.0) << "nothing left to mix";
}

}  // namespace
}  // namespace expertmesh::model
