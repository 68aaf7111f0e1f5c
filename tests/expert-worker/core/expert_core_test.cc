// The pure half of the expert worker: queue, epochs, merging.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "expert-worker/core/batcher.h"
#include "expert-worker/core/epoch_guard.h"
#include "expert-worker/core/merge.h"
#include "services/base/status.h"

namespace expertmesh::expert_worker {
namespace {

using base::Reason;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(BatcherTest, JoinsCallsOfTheOldestLayer) {
  Batcher batcher({.queue_rows_max = 100, .batch_rows_max = 10});
  EXPECT_TRUE(batcher.Offer({1, 3, 4}));
  EXPECT_TRUE(batcher.Offer({2, 4, 4}));
  EXPECT_TRUE(batcher.Offer({3, 3, 4}));
  EXPECT_TRUE(batcher.Offer({4, 3, 4}));  // would be row 12 of the batch
  EXPECT_THAT(batcher.Next(), ElementsAre(1, 3));
  EXPECT_THAT(batcher.Next(), ElementsAre(2));
  EXPECT_THAT(batcher.Next(), ElementsAre(4));
  EXPECT_THAT(batcher.Next(), IsEmpty());
  EXPECT_EQ(batcher.queued_rows(), 0u);
}

TEST(BatcherTest, IsBoundedButTakesAnyCallWhenEmpty) {
  Batcher batcher({.queue_rows_max = 8, .batch_rows_max = 8});
  EXPECT_TRUE(batcher.Offer({1, 0, 50}));
  EXPECT_FALSE(batcher.Offer({2, 0, 1}));
  EXPECT_EQ(batcher.credit_rows(), 0u);
  EXPECT_THAT(batcher.Next(), ElementsAre(1));
  EXPECT_EQ(batcher.credit_rows(), 8u);
}

TEST(EpochGuardTest, RefusesOldTermsAndRetiredNumbers) {
  EpochGuard guard;
  EXPECT_TRUE(guard.Admit({1, 1, 5}).ok());
  guard.Learn({2, 5, 99});
  EXPECT_TRUE(guard.Admit({2, 5, 99}).ok());
  EXPECT_TRUE(guard.Admit({2, 4, 1}).ok());  // one behind: steps in flight
  EXPECT_TRUE(guard.Admit({2, 6, 1}).ok());  // the router has not told us yet
  EXPECT_EQ(base::ReasonOf(guard.Admit({2, 3, 1})), Reason::kEpochStale);
  EXPECT_EQ(base::ReasonOf(guard.Admit({1, 9, 1})), Reason::kEpochStale);
  EXPECT_EQ(base::ReasonOf(guard.Admit({2, 5, 98})), Reason::kEpochMismatch);
}

TEST(EpochGuardTest, WhatWasTheNewestUntilNowIsServedAfterAChangeOfRouter) {
  EpochGuard guard;
  guard.Learn({1, 1, 7});
  guard.Learn({2, 1, 8});
  guard.Learn({2, 1, 8});  // told again
  EXPECT_TRUE(guard.Admit({1, 1, 7}).ok());
  EXPECT_EQ(base::ReasonOf(guard.Admit({1, 1, 9})), Reason::kEpochStale);
  EXPECT_EQ(base::ReasonOf(guard.Admit({1, 2, 7})), Reason::kEpochStale);
  guard.Learn({2, 2, 8});
  EXPECT_EQ(base::ReasonOf(guard.Admit({1, 1, 7})), Reason::kEpochStale);
}

TEST(EpochGuardTest, ALateViewDoesNotTurnTheClockBack) {
  EpochGuard guard;
  guard.Learn({2, 5, 99});
  guard.Learn({1, 9, 1});
  EXPECT_EQ(guard.newest()->term, 2u);
}

// A call of random rows; the "sums" of the test are a function of row and partial, so that Split
// can be checked without a model.
struct FakeCall {
  std::vector<float> rows;
  std::vector<uint32_t> offsets{0};
  std::vector<uint16_t> experts;
  std::vector<float> weights;
  std::vector<base::PartialNode> partials;
  base::ExpertBatch batch;
};

FakeCall MakeCall(std::mt19937& rng, size_t rows, size_t hidden) {
  FakeCall call;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < hidden; ++c) call.rows.push_back(static_cast<float>(rng() % 1000));
    const size_t count = 1 + rng() % 3;
    for (size_t k = 0; k < count; ++k) {
      call.experts.push_back(static_cast<uint16_t>(k * 4));
      call.weights.push_back(static_cast<float>(rng() % 7));
      call.partials.push_back({static_cast<uint32_t>(r), static_cast<uint16_t>(k * 4), 2});
    }
    call.offsets.push_back(static_cast<uint32_t>(call.experts.size()));
  }
  return call;
}

TEST(MergeTest, JoinsRowsAndTakesSumsApart) {
  std::mt19937 rng(7);
  const size_t hidden = 16;
  std::vector<FakeCall> calls;
  for (size_t rows : {1, 5, 3}) calls.push_back(MakeCall(rng, rows, hidden));
  std::vector<MergePart> parts;
  for (FakeCall& call : calls) {
    call.batch = {.layer = 2,
                  .row_count = call.offsets.size() - 1,
                  .row_dtype = base::Dtype::kF32,
                  .rows = reinterpret_cast<const std::byte*>(call.rows.data()),
                  .row_offsets = call.offsets,
                  .expert_ids = call.experts,
                  .expert_weights = call.weights,
                  .partials = call.partials};
    parts.push_back({&call.batch, std::vector<uint8_t>(call.batch.row_count, 1)});
  }
  parts[1].keep[2] = 0;  // one expired row
  const MergedBatch merged(parts, hidden);
  const base::ExpertBatch& batch = merged.batch();
  EXPECT_EQ(batch.row_count, 8u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(batch.rows) % 64, 0u);
  std::vector<float> sums(batch.partials.size() * hidden);
  for (size_t p = 0; p < batch.partials.size(); ++p) {
    const auto* row = reinterpret_cast<const float*>(batch.rows) + batch.partials[p].row * hidden;
    for (size_t c = 0; c < hidden; ++c)
      sums[p * hidden + c] = row[c] + batch.partials[p].first_expert;
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    std::vector<float> out(calls[i].partials.size() * hidden, -1);
    merged.Split(i, sums, out);
    for (size_t p = 0; p < calls[i].partials.size(); ++p) {
      const base::PartialNode& node = calls[i].partials[p];
      for (size_t c = 0; c < hidden; ++c) {
        const float want = i == 1 && node.row == 2
                               ? 0.0f
                               : calls[i].rows[node.row * hidden + c] + node.first_expert;
        ASSERT_EQ(out[p * hidden + c], want) << "call " << i << " partial " << p;
      }
    }
  }
}

}  // namespace
}  // namespace expertmesh::expert_worker
