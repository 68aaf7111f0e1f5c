// Routed experts cut into slices: any cut gives the bits of one process; a running sum does not.
#include "model/expert_slice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "model/kernels/aligned.h"
#include "model/local_experts.h"
#include "model/wire_row.h"
#include "services/base/status.h"
#include "tests/support/model_runner.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::model {
namespace {

using base::ExpertRange;
using test_support::LaneTrace;
using test_support::LoadExperts;
using test_support::SlicedExperts;

constexpr uint32_t kExperts = 24;

class ExpertSliceTest : public testing::TestWithParam<std::string> {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<test_support::TempDir>();
    test_support::WriteTinyModel(dir_->path(), test_support::AwkwardConfig());
  }
  static void TearDownTestSuite() { dir_.reset(); }

  ExpertSliceTest() : model_(test_support::LoadModel(dir_->path(), GetParam())) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      lanes_.push_back(test_support::RandomTokens(model_->config(), 40 + seed, seed));
    }
  }

  std::vector<LaneTrace> Run(ExpertBackend& experts, base::ThreadPool& pool) const {
    return test_support::RunLanes(*model_, experts, pool, lanes_, std::vector<size_t>{1, 7, 64});
  }
  std::vector<LaneTrace> RunWhole() const {
    base::ThreadPool pool(1);
    const auto whole = LoadExperts(dir_->path(), GetParam(), {{0, kExperts}});
    LocalExperts local(*whole, pool);
    return Run(local, pool);
  }
  // One loaded slice per owner.
  std::vector<LaneTrace> RunCut(const std::vector<uint16_t>& owners, uint16_t count, int threads,
                                bool running_sum = false) const {
    std::vector<std::unique_ptr<ExpertSlice>> slices;
    std::vector<const ExpertSlice*> pointers;
    for (uint16_t o = 0; o < count; ++o) {
      std::vector<ExpertRange> ranges;
      for (uint32_t e = 0; e < kExperts; ++e) {
        if (owners[e] == o) ranges.push_back({e, e + 1});
      }
      slices.push_back(LoadExperts(dir_->path(), GetParam(), ranges));
      pointers.push_back(slices.back().get());
    }
    base::ThreadPool pool(threads);
    SlicedExperts sliced(pointers, owners, pool);
    if (running_sum) sliced.UseRunningSum();
    return Run(sliced, pool);
  }

  static std::unique_ptr<test_support::TempDir> dir_;
  std::unique_ptr<AttentionModel> model_;
  std::vector<std::vector<uint32_t>> lanes_;
};
std::unique_ptr<test_support::TempDir> ExpertSliceTest::dir_;

INSTANTIATE_TEST_SUITE_P(Profiles, ExpertSliceTest, testing::Values("exact-f32", "bf16", "int8"),
                         [](const auto& info) {
                           return info.param == "exact-f32" ? "ExactF32" : info.param;
                         });

std::vector<uint16_t> AlignedOwners(uint32_t pools) {
  std::vector<uint16_t> owners(kExperts);
  const auto ranges = *base::CutSlices(kExperts, pools);
  for (uint16_t o = 0; o < ranges.size(); ++o) {
    for (uint32_t e = ranges[o].begin; e < ranges[o].end; ++e) owners[e] = o;
  }
  return owners;
}

TEST_P(ExpertSliceTest, AlignedCutsGiveTheSameBits) {
  const auto expected = RunWhole();
  for (const uint16_t pools : {1, 2, 3, 4, 8}) {
    EXPECT_EQ(RunCut(AlignedOwners(pools), pools, 1), expected) << pools;
  }
  EXPECT_EQ(RunCut(AlignedOwners(2), 2, 2), expected) << "two threads";
}

TEST_P(ExpertSliceTest, ACutWithAHoleAndRandomCutsGiveTheSameBits) {
  const auto expected = RunWhole();
  std::vector<uint16_t> hole(kExperts, 1);
  for (const uint32_t e : {0, 1, 2, 5, 6, 7}) hole[e] = 0;
  EXPECT_EQ(RunCut(hole, 2, 1), expected);
  std::mt19937_64 random(7);
  for (int round = 0; round < 3; ++round) {
    std::vector<uint16_t> owners(kExperts);
    for (uint16_t& o : owners) o = static_cast<uint16_t>(random() % 5);
    for (uint16_t o = 0; o < 5; ++o) owners[o * 4] = o;  // nobody is empty
    EXPECT_EQ(RunCut(owners, 5, 1), expected);
  }
}

TEST_P(ExpertSliceTest, ARunningSumIsNoticed) {
  const auto expected = RunWhole();
  EXPECT_NE(RunCut(AlignedOwners(8), 8, 1, true), expected);
}

// One call of Compute with every row asking for the same experts.
std::vector<float> ComputeRows(const ExpertSlice& slice, size_t rows, size_t copies,
                               const std::vector<uint16_t>& experts, int threads) {
  const size_t hidden = slice.hidden_size();
  AlignedBytes bytes;
  const Dtype wire = slice.profile().wire;
  bytes.Resize(rows * hidden * DtypeBytes(wire));
  std::mt19937_64 random(1);
  std::vector<float> values(hidden * (rows / copies));
  for (float& value : values) value = static_cast<float>(random() % 0x100) / 256.0f - 0.3f;
  std::vector<float> scales;
  for (size_t r = 0; r < rows; ++r) {
    const auto row = std::span<const float>(values).subspan(r % (rows / copies) * hidden, hidden);
    const float scale = ToWire(wire, row, bytes.data() + r * hidden * DtypeBytes(wire));
    if (wire == Dtype::kInt8Row) scales.push_back(scale);
  }
  std::vector<uint32_t> offsets = {0};
  std::vector<uint16_t> ids;
  std::vector<base::PartialNode> partials;
  for (uint32_t r = 0; r < rows; ++r) {
    ids.insert(ids.end(), experts.begin(), experts.end());
    offsets.push_back(static_cast<uint32_t>(ids.size()));
    partials.push_back({r, 0, 5});
  }
  const std::vector<float> weights(ids.size(), 0.3f);
  std::vector<float> sums(rows * hidden);
  base::ThreadPool pool(threads);
  slice.Compute({1, rows, wire, bytes.data(), offsets, ids, weights, partials, scales}, pool, sums);
  return sums;
}

TEST_P(ExpertSliceTest, ALargeBatchEqualsItsRows) {
  const auto slice = LoadExperts(dir_->path(), GetParam(), {{0, kExperts}});
  const std::vector<float> few = ComputeRows(*slice, 30, 1, {1, 4, 5, 20}, 1);
  const std::vector<float> many = ComputeRows(*slice, 600, 20, {1, 4, 5, 20}, 2);
  for (size_t copy = 0; copy < 20; ++copy) {
    EXPECT_EQ(std::memcmp(many.data() + copy * few.size(), few.data(), few.size() * sizeof(float)),
              0);
  }
  for (const float v : few) ASSERT_TRUE(std::isfinite(v));
  EXPECT_TRUE(ComputeRows(*slice, 0, 1, {}, 1).empty());
}

TEST_P(ExpertSliceTest, HoldsItsSliceOnly) {
  const auto quarter = LoadExperts(dir_->path(), GetParam(), {{0, 3}, {8, 11}});
  const auto whole = LoadExperts(dir_->path(), GetParam(), {{0, kExperts}});
  EXPECT_TRUE(quarter->Hosts(2));
  EXPECT_FALSE(quarter->Hosts(3));
  EXPECT_TRUE(quarter->Hosts(10));
  EXPECT_FALSE(quarter->Hosts(11));
  EXPECT_FALSE(quarter->Hosts(99999));
  EXPECT_FALSE(quarter->HasRoutedExperts(0)) << "dense";
  EXPECT_TRUE(quarter->HasRoutedExperts(2));
  EXPECT_FALSE(quarter->HasRoutedExperts(3));
  EXPECT_EQ(quarter->weight_bytes() * 4, whole->weight_bytes());
  EXPECT_EQ(quarter->expert_count(), kExperts);
  EXPECT_EQ(quarter->revision(), model_->revision());
  EXPECT_EQ(quarter->fingerprint(), model_->fingerprint());
}

TEST_P(ExpertSliceTest, RefusesExpertsThatTheModelLacks) {
  ExpertSlice::Options options;
  options.directory = dir_->path();
  options.profile = GetParam();
  options.experts = {{20, 25}};
  EXPECT_EQ(base::ReasonOf(ExpertSlice::Load(options).status()), base::Reason::kInvalidArgument);
  options.experts = {};
  EXPECT_EQ(base::ReasonOf(ExpertSlice::Load(options).status()), base::Reason::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::model
