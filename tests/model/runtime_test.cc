// Invariant 4 at the level of the model: a token's cache entry and logits are a function of the
// tokens so far, not of batch, chunks, threads, kernels, or whether it was decoded, prefilled or
// replayed.
#include "model/runtime.h"

#include <gtest/gtest.h>

#include <cstring>

#include "model/kernels/kernel_table.h"
#include "model/local_experts.h"
#include "services/base/status.h"
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

class RuntimeTest : public testing::TestWithParam<std::string> {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<test_support::TempDir>();
    test_support::WriteTinyModel(dir_->path(), test_support::AwkwardConfig());
  }
  static void TearDownTestSuite() { dir_.reset(); }

  RuntimeTest()
      : model_(LoadModel(dir_->path(), GetParam())),
        experts_(LoadExperts(dir_->path(), GetParam(), {{0, 24}})) {}

  std::vector<LaneTrace> Run(const std::vector<std::vector<uint32_t>>& lanes,
                             const std::vector<size_t>& chunks, int threads = 1,
                             uint64_t first_position = 0) const {
    base::ThreadPool pool(threads);
    LocalExperts local(*experts_, pool);
    return RunLanes(*model_, local, pool, lanes, chunks, first_position);
  }
  LaneTrace RunOne(const std::vector<uint32_t>& tokens, size_t chunk, int threads = 1) const {
    return Run({tokens}, {chunk}, threads)[0];
  }
  std::vector<uint32_t> Tokens(size_t count, uint64_t seed) const {
    return RandomTokens(model_->config(), count, seed);
  }

  static std::unique_ptr<test_support::TempDir> dir_;
  std::unique_ptr<AttentionModel> model_;
  std::unique_ptr<ExpertSlice> experts_;
};
std::unique_ptr<test_support::TempDir> RuntimeTest::dir_;

INSTANTIATE_TEST_SUITE_P(Profiles, RuntimeTest, testing::Values("exact-f32", "bf16", "int8"),
                         [](const auto& info) {
                           return info.param == "exact-f32" ? "ExactF32" : info.param;
                         });

TEST_P(RuntimeTest, DecodedPrefilledAndReplayedTokensAreEqual) {
  const std::vector<uint32_t> tokens = Tokens(200, 1);
  const LaneTrace decoded = RunOne(tokens, 1);
  for (const size_t chunk : {7, 64, 200}) EXPECT_EQ(RunOne(tokens, chunk), decoded) << chunk;
  EXPECT_EQ(RunOne(tokens, 1), decoded) << "replay";
  std::vector<uint32_t> other = tokens;
  other[100] ^= 1;
  const LaneTrace changed = RunOne(other, 64);
  EXPECT_EQ(changed.kv_hashes[99], decoded.kv_hashes[99]);
  EXPECT_NE(changed.kv_hashes[100], decoded.kv_hashes[100]);
  EXPECT_NE(changed.kv_hashes[199], decoded.kv_hashes[199]) << "the later tokens see it";
}

// More heads than a vector has lanes, and more entries than are attended to at once.
TEST_P(RuntimeTest, ManyHeadsAndALongContextAreEqualHoweverTheyAreCut) {
  test_support::TempDir dir;
  Config config = test_support::AwkwardConfig();
  config.num_attention_heads = 20;
  config.num_hidden_layers = 2;
  test_support::WriteTinyModel(dir.path(), config);
  const auto experts = LoadExperts(dir.path(), GetParam(), {{0, 24}});
  const std::vector<std::vector<uint32_t>> lanes = {RandomTokens(config, 600, 5)};
  std::vector<std::vector<LaneTrace>> traces;
  for (const std::string isa : {"auto", "baseline"}) {
    AttentionModel::Options options;
    options.directory = dir.path();
    options.profile = GetParam();
    options.isa = isa;
    const auto model = AttentionModel::Load(options);
    ASSERT_TRUE(model.ok()) << model.status();
    for (const auto& [chunk, threads] : {std::pair<size_t, int>{600, 1}, {600, 3}, {1, 3}}) {
      if (isa == "baseline" && chunk == 1) continue;  // slow
      base::ThreadPool pool(threads);
      LocalExperts local(*experts, pool);
      traces.push_back(RunLanes(**model, local, pool, lanes, std::vector<size_t>{chunk}));
      EXPECT_EQ(traces.back(), traces.front()) << isa << " " << chunk << " " << threads;
    }
  }
}

TEST_P(RuntimeTest, ThreadsDoNotMatter) {
  const std::vector<uint32_t> tokens = Tokens(130, 2);
  const LaneTrace alone = RunOne(tokens, 130, 1);
  for (const int threads : {2, 3, 5}) EXPECT_EQ(RunOne(tokens, 130, threads), alone) << threads;
  EXPECT_EQ(RunOne(tokens, 1, 2), alone);
}

// Enough rows that every parallel loop is cut into several tasks.
TEST_P(RuntimeTest, ThreadsDoNotMatterInAWideStep) {
  test_support::TempDir dir;
  test_support::WriteTinyModel(dir.path(), test_support::TinyV3Config());
  const auto model = LoadModel(dir.path(), GetParam());
  const auto experts = LoadExperts(dir.path(), GetParam(), {{0, 32}});
  const std::vector<std::vector<uint32_t>> lanes = {Tokens(300, 7), Tokens(300, 8)};
  std::vector<std::vector<LaneTrace>> traces;
  for (const int threads : {1, 2, 3}) {
    base::ThreadPool pool(threads);
    LocalExperts local(*experts, pool);
    traces.push_back(RunLanes(*model, local, pool, lanes, std::vector<size_t>{300, 300}));
  }
  EXPECT_EQ(traces[1], traces[0]);
  EXPECT_EQ(traces[2], traces[0]);
}

TEST_P(RuntimeTest, TheBatchDoesNotMatter) {
  std::vector<std::vector<uint32_t>> lanes;
  std::vector<size_t> chunks;
  for (size_t i = 0; i < 16; ++i) {
    lanes.push_back(Tokens(1 + i * 9, 10 + i));
    chunks.push_back(i % 3 == 0 ? 1 : 5 * i);
  }
  const std::vector<LaneTrace> together = Run(lanes, chunks, 2);
  for (size_t i = 0; i < lanes.size(); ++i)
    EXPECT_EQ(RunOne(lanes[i], lanes[i].size()), together[i]) << i;
}

TEST_P(RuntimeTest, MicroBatchesDoNotMatter) {
  // Cut inside lanes too: a part's rows attend to what the part before it wrote in the same layer.
  std::vector<std::vector<uint32_t>> lanes;
  for (size_t i = 0; i < 5; ++i) lanes.push_back(Tokens(3 + 20 * i, 40 + i));
  const std::vector<size_t> chunks = {1, 5, 16, 63, 70};
  const std::vector<LaneTrace> whole = Run(lanes, chunks);
  base::ThreadPool pool(2);
  LocalExperts local(*experts_, pool);
  for (const size_t parts : {2, 3, 4, 1000}) {
    EXPECT_EQ(RunLanes(*model_, local, pool, lanes, chunks, 0, parts), whole) << parts;
  }
}

// While one part is at its experts, the next goes through the layer.
TEST_P(RuntimeTest, APartIsAskedBeforeThePartBeforeItIsAwaited) {
  struct Recorder final : ExpertBackend {
    explicit Recorder(ExpertBackend& b) : inner(b) {}
    void Begin(const MoeCall& call) override {
      events.push_back({'B', call.layer, call.micro_batch});
      rows.push_back(call.first_row);
      inner.Begin(call);
    }
    void Finish(uint32_t part, std::span<float> out, std::span<uint8_t> alive) override {
      events.push_back({'F', 0, part});
      inner.Finish(part, out, alive);
    }
    ExpertBackend& inner;
    std::vector<std::tuple<char, uint32_t, uint32_t>> events;
    std::vector<size_t> rows;
  };
  base::ThreadPool pool(1);
  LocalExperts local(*experts_, pool);
  Recorder recorder(local);
  const std::vector<std::vector<uint32_t>> lanes = {Tokens(5, 50)};
  RunLanes(*model_, recorder, pool, lanes, std::vector<size_t>{5}, 0, 2);
  const std::vector<std::tuple<char, uint32_t, uint32_t>> expected = {
      {'B', 1, 0}, {'B', 1, 1}, {'F', 0, 0}, {'B', 2, 0},
      {'F', 0, 1}, {'B', 2, 1}, {'F', 0, 0}, {'F', 0, 1}};
  EXPECT_EQ(recorder.events, expected);
  EXPECT_EQ(recorder.rows, (std::vector<size_t>{0, 2, 0, 2}));
}

TEST_P(RuntimeTest, KernelsOfEveryIsaGiveTheSameBits) {
  const std::vector<std::vector<uint32_t>> lanes = {Tokens(70, 3)};
  const std::vector<size_t> chunks = {70};
  const LaneTrace expected = Run(lanes, chunks)[0];
  for (const KernelTable* table : AvailableKernels()) {
    const std::string isa(table->isa);
    const auto model = LoadModel(dir_->path(), GetParam(), isa);
    const auto experts = LoadExperts(dir_->path(), GetParam(), {{0, 24}}, isa);
    base::ThreadPool pool(1);
    LocalExperts local(*experts, pool);
    EXPECT_EQ(RunLanes(*model, local, pool, lanes, chunks)[0], expected) << isa;
    EXPECT_EQ(model->fingerprint(), model_->fingerprint());
    EXPECT_EQ(experts->fingerprint(), model_->fingerprint());
  }
}

TEST_P(RuntimeTest, FirstPositionTurnsTheRopeAndNotTheIndex) {
  const std::vector<std::vector<uint32_t>> lanes = {Tokens(70, 4)};
  const auto near = Run(lanes, {64}, 1, 0);
  const auto far = Run(lanes, {64}, 1, 999936);
  EXPECT_EQ(Run(lanes, {1}, 1, 999936), far);
  EXPECT_NE(near[0].kv_hashes[1], far[0].kv_hashes[1]);
}

TEST_P(RuntimeTest, LogitsComeForTheRowsThatWantThem) {
  PagePool pages(model_->lane_state(), 2);
  LaneState lane(pages);
  ASSERT_TRUE(lane.Reserve(6));
  base::ThreadPool pool(1);
  LocalExperts local(*experts_, pool);
  const std::vector<uint32_t> tokens = Tokens(6, 5);
  std::vector<StepRow> rows;
  for (size_t t = 0; t < 6; ++t) rows.push_back({&lane, tokens[t], t, t == 2 || t == 5, nullptr});
  const StepResult result = model_->RunStep(rows, local, pool);
  const size_t vocab = model_->config().vocab_size;
  ASSERT_EQ(result.logits.size(), 2 * vocab);
  const LaneTrace all = RunOne(tokens, 6);
  EXPECT_EQ(std::memcmp(result.logits.data(), all.logits.data() + 2 * vocab, vocab * 4), 0);
  EXPECT_EQ(std::memcmp(result.logits.data() + vocab, all.logits.data() + 5 * vocab, vocab * 4), 0);
  EXPECT_TRUE(model_->RunStep({}, local, pool).logits.empty());
}

// Fails one row in one layer, as a dispatcher does when nobody hosts an expert.
class FailingExperts final : public ExpertBackend {
 public:
  FailingExperts(ExpertBackend& inner, uint32_t layer, size_t row)
      : inner_(inner), layer_(layer), row_(row) {}
  void Begin(const MoeCall& call) override {
    fail_ = call.layer == layer_;
    alive_seen_.assign(call.alive.begin(), call.alive.end());
    inner_.Begin(call);
  }
  void Finish(uint32_t part, std::span<float> out, std::span<uint8_t> alive) override {
    inner_.Finish(part, out, alive);
    if (fail_) alive[row_] = 0;
  }
  std::vector<uint8_t> alive_seen_;

 private:
  ExpertBackend& inner_;
  uint32_t layer_;
  size_t row_;
  bool fail_ = false;
};

TEST_P(RuntimeTest, AFailedRowTakesItsLanesLaterRowsAndNobodyElse) {
  PagePool pages(model_->lane_state(), 4);
  LaneState first(pages);
  LaneState second(pages);
  ASSERT_TRUE(first.Reserve(4));
  ASSERT_TRUE(second.Reserve(4));
  base::ThreadPool pool(1);
  LocalExperts local(*experts_, pool);
  FailingExperts failing(local, 1, 1);
  const std::vector<uint32_t> tokens = Tokens(4, 6);
  std::vector<StepRow> rows;
  for (LaneState* lane : {&first, &second}) {
    for (size_t t = 0; t < 4; ++t) rows.push_back({lane, tokens[t], t, true, nullptr});
  }
  const StepResult result = model_->RunStep(rows, failing, pool);
  EXPECT_EQ(result.alive, (std::vector<uint8_t>{1, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(failing.alive_seen_, result.alive) << "later layers do not dispatch dead rows";
  const LaneTrace alone = RunOne(tokens, 4);
  const size_t vocab = model_->config().vocab_size;
  EXPECT_EQ(std::memcmp(result.logits.data() + 4 * vocab, alone.logits.data(), 4 * vocab * 4), 0);
}

// The later rows of the lane are in another part, which has been dispatched when the row fails.
TEST_P(RuntimeTest, AFailedRowTakesItsLanesRowsInLaterPartsToo) {
  class FailsInFirstPart final : public ExpertBackend {
   public:
    explicit FailsInFirstPart(ExpertBackend& inner) : inner_(inner) {}
    void Begin(const MoeCall& call) override {
      layer_[call.micro_batch] = call.layer;
      alive_.assign(call.alive.begin(), call.alive.end());
      inner_.Begin(call);
    }
    void Finish(uint32_t part, std::span<float> out, std::span<uint8_t> alive) override {
      inner_.Finish(part, out, alive);
      if (part == 0 && layer_[part] == 1) alive[1] = 0;
    }
    const std::vector<uint8_t>& last_alive() const { return alive_; }

   private:
    ExpertBackend& inner_;
    std::map<uint32_t, uint32_t> layer_;
    std::vector<uint8_t> alive_;
  };
  PagePool pages(model_->lane_state(), 4);
  LaneState first(pages);
  LaneState second(pages);
  ASSERT_TRUE(first.Reserve(4));
  ASSERT_TRUE(second.Reserve(2));
  base::ThreadPool pool(1);
  LocalExperts local(*experts_, pool);
  FailsInFirstPart failing(local);
  const std::vector<uint32_t> tokens = Tokens(4, 6);
  std::vector<StepRow> rows;
  for (size_t t = 0; t < 4; ++t) rows.push_back({&first, tokens[t], t, true, nullptr});
  for (size_t t = 0; t < 2; ++t) rows.push_back({&second, tokens[t], t, true, nullptr});
  const StepResult result = model_->RunStep(rows, failing, pool, {nullptr, nullptr, 3});
  EXPECT_EQ(result.alive, (std::vector<uint8_t>{1, 0, 0, 0, 1, 1}));
  EXPECT_EQ(failing.last_alive(), (std::vector<uint8_t>{1, 1})) << "the other lane went on";
  const LaneTrace alone = RunOne(tokens, 4);
  const size_t vocab = model_->config().vocab_size;
  EXPECT_EQ(std::memcmp(result.logits.data() + 4 * vocab, alone.logits.data(), 2 * vocab * 4), 0);
}

TEST_P(RuntimeTest, ForcedExpertsReplaceTheChoice) {
  PagePool pages(model_->lane_state(), 2);
  LaneState lane(pages);
  ASSERT_TRUE(lane.Reserve(1));
  base::ThreadPool pool(1);
  struct Recorder final : ExpertBackend {
    explicit Recorder(ExpertBackend& b) : inner(b) {}
    void Begin(const MoeCall& call) override {
      ids.assign(call.expert_ids.begin(), call.expert_ids.end());
      weights.assign(call.expert_weights.begin(), call.expert_weights.end());
      inner.Begin(call);
    }
    void Finish(uint32_t part, std::span<float> out, std::span<uint8_t> alive) override {
      inner.Finish(part, out, alive);
    }
    ExpertBackend& inner;
    std::vector<uint16_t> ids;
    std::vector<float> weights;
  };
  LocalExperts local(*experts_, pool);
  Recorder recorder(local);
  const std::vector<uint16_t> choice = {23, 0, 5, 6, 7, 12, 18};
  const std::vector<std::vector<uint16_t>> forced(3, choice);
  StepRow row{&lane, 1, 0, true, &forced};
  EXPECT_EQ(model_->RunStep(std::span(&row, 1), recorder, pool).alive[0], 1);
  EXPECT_EQ(recorder.ids, (std::vector<uint16_t>{0, 5, 6, 7, 12, 18, 23}));
  float sum = 0;
  for (const float w : recorder.weights) sum += w;
  EXPECT_NEAR(sum, 2.5, 1e-5);
  const std::vector<std::vector<uint16_t>> twice(3, std::vector<uint16_t>(7, 3));
  row.forced_experts = &twice;
  EXPECT_EQ(model_->RunStep(std::span(&row, 1), recorder, pool).alive[0], 0);
}

TEST_P(RuntimeTest, DeclaresItsLaneState) {
  const LaneStateDeclaration& state = model_->lane_state();
  ASSERT_EQ(state.streams.size(), 1u);
  const size_t element = GetParam() == "exact-f32" ? 4 : 2;
  EXPECT_EQ(state.bytes_per_token(), 3 * (28 + 6) * element);
}

TEST(RuntimeLoad, NamesWhatIsWrong) {
  AttentionModel::Options options;
  options.directory = "/nonexistent";
  EXPECT_FALSE(AttentionModel::Load(options).ok());
  test_support::TempDir dir;
  test_support::WriteTinyModel(dir.path(), test_support::AwkwardConfig());
  options.directory = dir.path();
  options.profile = "int3";
  EXPECT_EQ(base::ReasonOf(AttentionModel::Load(options).status()), base::Reason::kInvalidArgument);
  Config wider = test_support::AwkwardConfig();
  wider.v_head_dim = 24;  // contradicts the weights
  test_support::WriteFile(dir / "config.json", ConfigJson(wider));
  options.profile = "bf16";
  const absl::Status status = AttentionModel::Load(options).status();
  EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadCheckpoint);
  EXPECT_NE(status.message().find("kv_b_proj"), std::string::npos) << status;
}

}  // namespace
}  // namespace expertmesh::model
