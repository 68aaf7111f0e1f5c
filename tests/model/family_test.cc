// The family's own mechanisms (selection, streams, memory) in the fast runtime: against the naive
// reference, and invariant 4 with all of them at work.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "model/kernels/kernel_table.h"
#include "model/local_experts.h"
#include "model/local_memory.h"
#include "model/reference.h"
#include "model/runtime.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "tests/support/model_runner.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::model {
namespace {

using test_support::LaneTrace;
using test_support::LoadExperts;
using test_support::LoadModel;
using test_support::RandomTokens;
using test_support::RunLanes;

class FamilyTest : public testing::TestWithParam<std::string> {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<test_support::TempDir>();
    WriteOptions options;
    options.directory = *dir_ / "tiny";
    options.seed = 4;
    const absl::Status written = WriteModel(*FindPreset("tiny"), options);
    ASSERT_TRUE(written.ok()) << written;
  }
  static void TearDownTestSuite() { dir_.reset(); }

  FamilyTest()
      : model_(LoadModel(Directory(), GetParam())),
        experts_(LoadExperts(Directory(), GetParam(), {{0, 32}})) {}

  static std::string Directory() { return *dir_ / "tiny"; }
  static std::vector<uint32_t> Tokens(size_t count, uint64_t seed) {
    return RandomTokens(FindPreset("tiny")->config, count, seed);
  }
  // The model with other keys in its config and the same weights.
  static std::unique_ptr<AttentionModel> Variant(const Config& config, const std::string& profile) {
    const std::string path = *dir_ / ("variant-" + std::to_string(variants_++));
    std::filesystem::create_directory(path);
    for (const auto& entry : std::filesystem::directory_iterator(Directory())) {
      const std::string name = entry.path().filename();
      if (!name.starts_with("model")) continue;  // weights and their index
      std::filesystem::create_symlink(entry.path(), path + "/" + name);
    }
    test_support::WriteFile(path + "/config.json", ConfigJson(config));
    return LoadModel(path, profile);
  }
  std::vector<LaneTrace> Run(const AttentionModel& model,
                             const std::vector<std::vector<uint32_t>>& lanes,
                             const std::vector<size_t>& chunks, int threads = 1,
                             uint64_t first_position = 0) const {
    base::ThreadPool pool(threads);
    LocalExperts local(*experts_, pool);
    return RunLanes(model, local, pool, lanes, chunks, first_position);
  }
  LaneTrace RunOne(const std::vector<uint32_t>& tokens, size_t chunk, int threads = 1) const {
    return Run(*model_, {tokens}, {chunk}, threads)[0];
  }

  static std::unique_ptr<test_support::TempDir> dir_;
  static int variants_;
  std::unique_ptr<AttentionModel> model_;
  std::unique_ptr<ExpertSlice> experts_;
};
std::unique_ptr<test_support::TempDir> FamilyTest::dir_;
int FamilyTest::variants_ = 0;

INSTANTIATE_TEST_SUITE_P(Profiles, FamilyTest, testing::Values("exact-f32", "bf16", "int8"),
                         [](const auto& info) {
                           return info.param == "exact-f32" ? "ExactF32" : info.param;
                         });

// Lookback of the hash and shared selections do not end at the edge of a chunk.
TEST_P(FamilyTest, ChunksDecodeAndReplayAreEqual) {
  const std::vector<uint32_t> tokens = Tokens(150, 1);
  const LaneTrace decoded = RunOne(tokens, 1);
  for (const size_t chunk : {2, 3, 7, 64, 150}) EXPECT_EQ(RunOne(tokens, chunk), decoded) << chunk;
  EXPECT_EQ(RunOne(tokens, 1), decoded) << "replay";
}

TEST_P(FamilyTest, BatchAndThreadsDoNotMatter) {
  std::vector<std::vector<uint32_t>> lanes;
  std::vector<size_t> chunks;
  for (size_t i = 0; i < 9; ++i) {
    lanes.push_back(Tokens(1 + i * 17, 10 + i));
    chunks.push_back(i % 3 == 0 ? 1 : 5 * i);
  }
  for (const int threads : {1, 3}) {
    const std::vector<LaneTrace> together = Run(*model_, lanes, chunks, threads);
    for (size_t i = 0; i < lanes.size(); ++i) {
      EXPECT_EQ(RunOne(lanes[i], lanes[i].size()), together[i]) << i;
    }
  }
}

TEST_P(FamilyTest, KernelsOfEveryIsaGiveTheSameBits) {
  const std::vector<uint32_t> tokens = Tokens(80, 3);
  const LaneTrace expected = RunOne(tokens, 80);
  for (const KernelTable* table : AvailableKernels()) {
    const std::string isa(table->isa);
    const auto model = LoadModel(Directory(), GetParam(), isa);
    const auto experts = LoadExperts(Directory(), GetParam(), {{0, 32}}, isa);
    base::ThreadPool pool(1);
    LocalExperts local(*experts, pool);
    const std::vector<std::vector<uint32_t>> lanes = {tokens};
    const std::vector<size_t> chunks = {80};
    EXPECT_EQ(RunLanes(*model, local, pool, lanes, chunks)[0], expected) << isa;
    EXPECT_EQ(model->fingerprint(), model_->fingerprint());
  }
}

TEST_P(FamilyTest, AFarStartTurnsTheRopeOnly) {
  const std::vector<std::vector<uint32_t>> lanes = {Tokens(70, 4)};
  const auto far = Run(*model_, lanes, {64}, 1, 999936);
  EXPECT_EQ(Run(*model_, lanes, {1}, 1, 999936), far);
  EXPECT_NE(Run(*model_, lanes, {64}, 1, 0), far);
}

std::vector<uint32_t> Logits(const LaneTrace& trace) { return trace.logits; }

// docs/model-family.md §4.4: with at most index_topk tokens every position is selected.
TEST_P(FamilyTest, SelectionOfEverythingIsDenseAttentionBitForBit) {
  Config dense = FindPreset("tiny")->config;
  dense.indexer.reset();
  Config wide = FindPreset("tiny")->config;
  wide.indexer->index_topk = 96;
  const std::vector<std::vector<uint32_t>> lanes = {Tokens(96, 5)};
  const auto expected = Run(*Variant(dense, GetParam()), lanes, {32});
  EXPECT_EQ(Logits(Run(*Variant(wide, GetParam()), lanes, {32})[0]), Logits(expected[0]));
  EXPECT_EQ(Logits(Run(*Variant(wide, GetParam()), lanes, {1})[0]), Logits(expected[0]));
  wide.indexer->index_topk = 95;  // the last token has to leave one out
  const auto sparse = Logits(Run(*Variant(wide, GetParam()), lanes, {32})[0]);
  const size_t vocab = dense.vocab_size;
  const auto last = sparse.end() - static_cast<ptrdiff_t>(vocab);
  EXPECT_TRUE(std::equal(sparse.begin(), last, expected[0].logits.begin()));
  EXPECT_FALSE(
      std::equal(last, sparse.end(), expected[0].logits.begin() + (last - sparse.begin())));
}

TEST_P(FamilyTest, AttentionReadsAtMostTopEntriesOfAToken) {
  const Config& config = model_->config();
  const std::vector<uint32_t> tokens = Tokens(120, 6);
  PagePool pages(model_->lane_state(), 2);
  LaneState lane(pages);
  ASSERT_TRUE(lane.Reserve(tokens.size()));
  base::ThreadPool pool(1);
  LocalExperts local(*experts_, pool);
  std::vector<StepRow> rows;
  for (size_t t = 0; t < tokens.size(); ++t) {
    StepRow row{&lane, tokens[t], t};
    row.previous = std::span(tokens).first(t);
    rows.push_back(row);
  }
  Trace trace;
  const StepResult result = model_->RunStep(rows, local, pool, {&trace});
  uint64_t counted = 0;
  for (const Trace::Layer& layer : trace.layers) {
    for (size_t t = 0; t < tokens.size(); ++t) {
      EXPECT_EQ(layer.attended[t], std::min<size_t>(t + 1, config.indexer->index_topk)) << t;
      counted += layer.attended[t];
    }
  }
  EXPECT_EQ(result.attended_entries, counted);
}

// Writes `low` into the low half of every second number of the tensors named `…NAME`, 0 into the
// others: numbers that stay the same once they are rounded to bf16. Returns how many tensors.
size_t SetBelowBf16(const std::string& path, const std::string& name, uint16_t low) {
  std::string file = test_support::ReadFile(path);
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof(header));
  size_t tensors = 0;
  for (size_t at = 0; (at = file.find(name + "\":{", at)) < header; ++at, ++tensors) {
    EXPECT_EQ(file.find("\"F32\"", at), file.find(":\"", at) + 1) << "stored in f32";
    const std::string key = "\"data_offsets\":[";
    char* end = nullptr;
    const size_t first = std::strtoul(&file[file.find(key, at) + key.size()], &end, 10);
    const size_t last = std::strtoul(end + 1, nullptr, 10);
    for (size_t i = 0; i < (last - first) / sizeof(float); ++i) {
      const uint16_t value = i % 2 == 0 ? 0 : low;
      std::memcpy(&file[8 + header + first + i * sizeof(float)], &value, sizeof(value));
    }
  }
  if (tensors > 0) test_support::WriteFile(path, file);
  return tensors;
}

// Positions that every layer with an indexer chose for 200 tokens, in bf16.
std::vector<std::vector<int32_t>> Chosen(uint16_t low) {
  test_support::TempDir dir;
  WriteOptions options;
  options.directory = dir / "tiny";
  options.seed = 12;
  EXPECT_TRUE(WriteModel(*FindPreset("tiny"), options).ok());
  size_t changed = 0;
  for (const auto& entry : std::filesystem::directory_iterator(options.directory)) {
    if (entry.path().extension() != ".safetensors") continue;
    changed += SetBelowBf16(entry.path(), ".indexer.weights_proj.weight", low);
  }
  EXPECT_EQ(changed, 3u);
  const auto model = LoadModel(options.directory, "bf16");
  const auto experts = LoadExperts(options.directory, "bf16", {{0, 32}});
  base::ThreadPool pool(1);
  LocalExperts local(*experts, pool);
  const std::vector<uint32_t> tokens = RandomTokens(model->config(), 200, 8);
  PagePool pages(model->lane_state(), 4);
  LaneState lane(pages);
  EXPECT_TRUE(lane.Reserve(tokens.size()));
  std::vector<StepRow> rows;
  for (size_t t = 0; t < tokens.size(); ++t) {
    StepRow row{&lane, tokens[t], t};
    row.previous = std::span(tokens).first(t);
    rows.push_back(row);
  }
  Trace trace;
  model->RunStep(rows, local, pool, {&trace});
  std::vector<std::vector<int32_t>> positions;
  for (const Trace::Layer& layer : trace.layers) positions.push_back(layer.positions);
  return positions;
}

// docs/model-family.md §3: weights_proj is computed in float32 in every profile.
TEST(FamilyIndexer, ItsWeightsAreNotRoundedToBf16) {
  const auto chosen = Chosen(0);
  EXPECT_EQ(Chosen(0), chosen);
  EXPECT_NE(Chosen(0x7000), chosen);
}

// A memory that answers like the model's own, but fails one token or reads another table.
class OddMemory final : public MemoryBackend {
 public:
  OddMemory(MemoryBackend& inner, size_t dead_row, float factor)
      : inner_(inner), dead_row_(dead_row), factor_(factor) {}
  void Begin(const MemoryCall& call) override {
    ++begun;
    layers = call.layers.size();
    inner_.Begin(call);
  }
  void Finish(uint32_t layer, std::span<float> out, std::span<uint8_t> alive) override {
    inner_.Finish(layer, out, alive);
    for (float& x : out) x *= factor_;
    if (dead_row_ < alive.size()) alive[dead_row_] = 0;
  }
  size_t begun = 0;
  size_t layers = 0;

 private:
  MemoryBackend& inner_;
  const size_t dead_row_;
  const float factor_;
};

TEST_P(FamilyTest, TheMemoryIsAskedOncePerStepAndAFailedTokenDiesAlone) {
  const std::vector<uint32_t> tokens = Tokens(5, 7);
  base::ThreadPool pool(1);
  LocalExperts local(*experts_, pool);
  auto own = LocalMemory::Load(Directory(), model_->config());
  ASSERT_TRUE(own.ok()) << own.status();
  const auto step = [&](OddMemory& memory) {
    PagePool pages(model_->lane_state(), 2);
    LaneState first(pages);
    LaneState second(pages);
    EXPECT_TRUE(first.Reserve(5) && second.Reserve(5));
    std::vector<StepRow> rows;
    for (LaneState* lane : {&first, &second}) {
      for (size_t t = 0; t < tokens.size(); ++t) {
        StepRow row{lane, tokens[t], t, true};
        row.previous = std::span(tokens).first(t);
        rows.push_back(row);
      }
    }
    return model_->RunStep(rows, local, pool, {nullptr, &memory});
  };
  OddMemory plain(**own, 99, 1.0f);
  const StepResult good = step(plain);
  EXPECT_EQ(plain.begun, 1u);
  EXPECT_EQ(plain.layers, 2u);
  const LaneTrace alone = RunOne(tokens, 5);
  const size_t vocab = model_->config().vocab_size;
  EXPECT_EQ(std::memcmp(good.logits.data(), alone.logits.data(), 5 * vocab * 4), 0);
  OddMemory failing(**own, 2, 1.0f);
  const StepResult failed = step(failing);
  EXPECT_EQ(failed.alive, (std::vector<uint8_t>{1, 1, 0, 0, 0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(std::memcmp(failed.logits.data() + 5 * vocab, alone.logits.data(), 5 * vocab * 4), 0);
  OddMemory louder(**own, 99, 2.0f);
  EXPECT_NE(step(louder).logits, good.logits) << "the memory does nothing";
}

// Differences in standard deviations of the reference's logits.
TEST(FamilyReference, FastExactF32Agrees) {
  test_support::TempDir dir;
  WriteOptions options;
  options.directory = dir / "tiny";
  options.seed = 11;
  ASSERT_TRUE(WriteModel(*FindPreset("tiny"), options).ok());
  const auto reference = ReferenceModel::Load(options.directory);
  ASSERT_TRUE(reference.ok()) << reference.status();
  const auto model = LoadModel(options.directory, "exact-f32");
  const auto experts = LoadExperts(options.directory, "exact-f32", {{0, 32}});
  base::ThreadPool pool(1);
  LocalExperts local(*experts, pool);
  const std::vector<uint32_t> tokens = RandomTokens(model->config(), 72, 1);
  const std::vector<float> expected = (*reference)->Forward(tokens);
  const std::vector<std::vector<uint32_t>> lanes = {tokens};
  const std::vector<size_t> chunks = {16};
  const LaneTrace trace = RunLanes(*model, local, pool, lanes, chunks)[0];
  ASSERT_EQ(trace.logits.size(), expected.size());
  double squares = 0;
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    float got = 0;
    std::memcpy(&got, &trace.logits[i], sizeof got);
    worst = std::max(worst, std::abs(double{got} - double{expected[i]}));
    squares += double{expected[i]} * double{expected[i]};
  }
  EXPECT_LT(worst / std::sqrt(squares / static_cast<double>(expected.size())), 2e-4);
}

}  // namespace
}  // namespace expertmesh::model
