#include "attention-worker/core/lane.h"

#include <gtest/gtest.h>

#include <cmath>

#include "services/base/status.h"

namespace expertmesh::attention_worker {
namespace {

using base::Reason;

constexpr LaneBounds kBounds{.vocab_size = 100, .context = 32};

LaneRequest Prompt(size_t tokens) {
  LaneRequest request;
  request.prompt.assign(tokens, 7);
  return request;
}

Reason ReasonFor(LaneRequest request) { return base::ReasonOf(CheckRequest(request, kBounds)); }

TEST(LaneTest, RequestsAreHeldAgainstTheModel) {
  EXPECT_EQ(ReasonFor(Prompt(0)), Reason::kInvalidArgument);
  EXPECT_EQ(ReasonFor(Prompt(32)), Reason::kContextLengthExceeded);
  EXPECT_EQ(ReasonFor(Prompt(31)), Reason::kUnspecified);
  LaneRequest request = Prompt(4);
  request.prompt[3] = 100;
  EXPECT_EQ(ReasonFor(request), Reason::kInvalidArgument);
  request = Prompt(4);
  request.stop_tokens = {99};
  EXPECT_EQ(ReasonFor(request), Reason::kUnspecified);
  request.stop_tokens = {99, 100};
  EXPECT_EQ(ReasonFor(request), Reason::kInvalidArgument);
  request = Prompt(4);
  request.max_new_tokens = 29;
  EXPECT_EQ(ReasonFor(request), Reason::kContextLengthExceeded);
  request = Prompt(4);
  request.first_position = UINT64_MAX - 1;
  EXPECT_EQ(ReasonFor(request), Reason::kContextLengthExceeded);
  for (float bad : {-0.1f, NAN, INFINITY}) {
    request = Prompt(4);
    request.sampling.temperature = bad;
    EXPECT_EQ(ReasonFor(request), Reason::kInvalidArgument) << bad;
  }
  for (float bad : {0.0f, 1.1f, NAN}) {
    request = Prompt(4);
    request.sampling.top_p = bad;
    EXPECT_EQ(ReasonFor(request), Reason::kInvalidArgument) << bad;
  }
}

TEST(LaneTest, WithoutALimitAnAnswerMayFillTheContext) {
  LaneRequest request = Prompt(10);
  request.first_position = 2;
  ASSERT_TRUE(CheckRequest(request, kBounds).ok());
  EXPECT_EQ(request.max_new_tokens, 20u);
}

TEST(LaneTest, WhatThePagesCannotHoldIsRefusedAndNeverTheDefault) {
  const LaneBounds small{.vocab_size = 100, .context = 32, .lane_tokens = 16};
  const auto reason = [&](LaneRequest request, uint32_t more) {
    request.max_new_tokens = more;
    return base::ReasonOf(CheckRequest(request, small));
  };
  EXPECT_EQ(reason(Prompt(10), 6), Reason::kUnspecified);
  EXPECT_EQ(reason(Prompt(10), 7), Reason::kContextLengthExceeded);
  EXPECT_EQ(reason(Prompt(16), 0), Reason::kContextLengthExceeded);
  LaneRequest request = Prompt(10);
  ASSERT_TRUE(CheckRequest(request, small).ok());
  EXPECT_EQ(request.max_new_tokens, 6u);
}

TEST(LaneTest, EndsOnEndTokenStopTokenOrLength) {
  LaneRequest request = Prompt(2);
  request.max_new_tokens = 3;
  request.stop_tokens = {50};
  Lane lane(base::LaneId{1}, request);
  EXPECT_EQ(lane.Append(5, {1}), std::nullopt);
  EXPECT_EQ(lane.PositionOf(lane.tokens().size()), 3u);
  EXPECT_EQ(Lane(lane).Append(1, {1}), FinishReason::kStop);
  EXPECT_EQ(Lane(lane).Append(50, {1}), FinishReason::kStop);
  EXPECT_EQ(lane.Append(6, {1}), std::nullopt);
  EXPECT_EQ(lane.Append(6, {1}), FinishReason::kLength);
}

TEST(LaneTest, TheDebugDoorForcesTokensAndGoesPastTheEnd) {
  LaneRequest request = Prompt(2);
  request.max_new_tokens = 3;
  request.forced_tokens = {9, 1};
  request.ignore_eos = true;
  Lane lane(base::LaneId{1}, request);
  EXPECT_EQ(lane.ForcedNext(), 9u);
  lane.Append(9, {1});
  EXPECT_EQ(lane.ForcedNext(), 1u);
  EXPECT_EQ(lane.Append(1, {1}), std::nullopt);
  EXPECT_EQ(lane.ForcedNext(), std::nullopt);
}

}  // namespace
}  // namespace expertmesh::attention_worker
