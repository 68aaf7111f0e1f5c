// LayerDispatch on a manual clock: who gets which rows, and what happens when a pool, a connection
// or a placement fails.
#include "attention-worker/core/dispatch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "services/base/status.h"

namespace expertmesh::attention_worker {
namespace {

using base::Error;
using base::Instant;
using base::Reason;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using Kind = DispatchAction::Kind;

PlacementView TwoPools(uint32_t experts, uint64_t number = 1) {
  PlacementView view;
  view.term = 1;
  view.number = number;
  view.expert_count = experts;
  view.pools = {{"low", {{0, experts / 2}}, {{"low-0", 1, "a"}, {"low-1", 2, "b"}}},
                {"high", {{experts / 2, experts}}, {{"high-0", 3, "c"}}}};
  return view;
}

class DispatchTest : public testing::Test {
 protected:
  DispatchTest() {
    for (const char* worker : {"low-0", "low-1", "high-0"}) memory_.SetUp(worker, true);
  }

  DispatchActions Start(const PlacementView& view) {
    const DispatchInput input{alive_.size(), 2, experts_, alive_};
    return dispatch_.Start(input, view, now_);
  }

  static std::map<std::string, uint64_t> Sent(const DispatchActions& actions) {
    std::map<std::string, uint64_t> sent;
    for (const DispatchAction& a : actions) {
      if (a.kind == Kind::kSend) sent[a.worker] = a.call_id;
    }
    return sent;
  }

  // Two rows: row 0 chooses 1 and 6, row 1 chooses 2 and 3 (of 8).
  std::vector<uint16_t> experts_ = {1, 6, 2, 3};
  std::vector<uint8_t> alive_ = {1, 1};
  DispatchMemory memory_;
  LayerDispatch dispatch_{DispatchLimits{}, memory_};
  Instant now_{1000};
};

TEST_F(DispatchTest, EachPoolGetsItsRowsOnce) {
  const DispatchActions actions = Start(TwoPools(8));
  const auto sent = Sent(actions);
  ASSERT_THAT(sent, SizeIs(2));
  for (const DispatchAction& a : actions) {
    const Part& part = dispatch_.part(a.part);
    if (part.pool == "low") {
      EXPECT_THAT(part.rows, ElementsAre(0, 1));
      EXPECT_THAT(part.row_offsets, ElementsAre(0, 1, 3));
      EXPECT_THAT(part.expert_ids, ElementsAre(1, 2, 3));
      EXPECT_THAT(part.entries, ElementsAre(0, 2, 3));
      // Row 0 goes to both pools, row 1 to this one only, so its whole tree is one partial.
      EXPECT_THAT(part.partials,
                  ElementsAre(base::PartialNode{0, 0, 2}, base::PartialNode{1, 0, 3}));
    } else {
      EXPECT_THAT(part.rows, ElementsAre(0));
      EXPECT_THAT(part.partials, ElementsAre(base::PartialNode{0, 4, 2}));
    }
  }
  EXPECT_EQ(dispatch_.extra_partials(), 0u);
  for (const auto& [worker, call] : sent) dispatch_.OnAnswer(call, 100, now_);
  EXPECT_TRUE(dispatch_.done());
}

TEST_F(DispatchTest, DeadRowsAreNotSent) {
  alive_ = {0, 1};
  const DispatchActions actions = Start(TwoPools(8));
  ASSERT_THAT(actions, SizeIs(1));
  EXPECT_THAT(dispatch_.part(actions[0].part).rows, ElementsAre(1));
}

TEST_F(DispatchTest, LostPeerGoesToTheOtherReplicaAtOnce) {
  const auto sent = Sent(Start(TwoPools(8)));
  const std::string first = sent.contains("low-0") ? "low-0" : "low-1";
  memory_.SetUp(first, false);
  const auto again = Sent(
      dispatch_.OnFailure(sent.at(first), Error(Reason::kPeerLost, "gone"), TwoPools(8), now_));
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_NE(again.begin()->first, first);
  EXPECT_EQ(again.begin()->first.substr(0, 4), "low-");
  EXPECT_EQ(dispatch_.resends(), 1);
}

TEST_F(DispatchTest, LateAnswerOfALostCallIsIgnored) {
  const auto sent = Sent(Start(TwoPools(8)));
  const std::string first = sent.contains("low-0") ? "low-0" : "low-1";
  dispatch_.OnFailure(sent.at(first), Error(Reason::kPeerLost, "gone"), TwoPools(8), now_);
  dispatch_.OnAnswer(sent.at(first), 100, now_);
  dispatch_.OnAnswer(sent.at("high-0"), 100, now_);
  EXPECT_FALSE(dispatch_.done());
}

TEST_F(DispatchTest, WithoutAReplicaRowsWaitAndThenFailWithTheReason) {
  const auto sent = Sent(Start(TwoPools(8)));
  memory_.SetUp("high-0", false);
  auto actions =
      dispatch_.OnFailure(sent.at("high-0"), Error(Reason::kPeerLost, "gone"), TwoPools(8), now_);
  EXPECT_THAT(actions, IsEmpty());
  const Instant wake = dispatch_.next_wake();
  EXPECT_EQ(wake, now_ + DispatchLimits{}.wait_max);
  actions = dispatch_.OnChange(TwoPools(8), wake);
  ASSERT_THAT(actions, SizeIs(1));
  EXPECT_EQ(actions[0].kind, Kind::kFailRows);
  EXPECT_EQ(base::ReasonOf(actions[0].status), Reason::kExpertsUnavailable);
  EXPECT_THAT(dispatch_.part(actions[0].part).rows, ElementsAre(0));
}

TEST_F(DispatchTest, OneWaitServesEveryoneWhoMeetsTheSameLoss) {
  memory_.SetUp("high-0", false);
  Start(TwoPools(8));
  const base::Micros wait = DispatchLimits{}.wait_max;
  // Another step begins when most of the wait is over: it gets the rest of it, not a new one.
  LayerDispatch later(DispatchLimits{}, memory_);
  const DispatchInput input{alive_.size(), 2, experts_, alive_};
  later.Start(input, TwoPools(8), now_ + (wait - base::Micros(10)));
  EXPECT_EQ(later.next_wake(), now_ + wait);
  // And one that begins after it fails at once.
  LayerDispatch late(DispatchLimits{}, memory_);
  const auto actions = late.Start(input, TwoPools(8), now_ + wait);
  EXPECT_TRUE(std::any_of(actions.begin(), actions.end(), [](const DispatchAction& action) {
    return action.kind == Kind::kFailRows;
  }));
  // A worker that connects ends the outage; the next loss is waited for anew.
  memory_.SetUp("high-0", true);
  memory_.SetUp("high-0", false);
  LayerDispatch anew(DispatchLimits{}, memory_);
  anew.Start(input, TwoPools(8), now_ + 5 * wait);
  EXPECT_EQ(anew.next_wake(), now_ + 6 * wait);
}

TEST_F(DispatchTest, IdleReplicasTakeTurns) {
  const DispatchInput input{alive_.size(), 2, experts_, alive_};
  std::map<std::string, int> calls;
  for (int layer = 0; layer < 6; ++layer) {
    LayerDispatch dispatch(DispatchLimits{}, memory_);
    for (const auto& [worker, call] : Sent(dispatch.Start(input, TwoPools(8), now_))) {
      ++calls[worker];
      dispatch.OnAnswer(call, 100, now_);
    }
  }
  EXPECT_EQ(calls, (std::map<std::string, int>{{"low-0", 3}, {"low-1", 3}, {"high-0", 6}}));
}

TEST_F(DispatchTest, TheLessLoadedReplicaGoesBeforeTheOneWhoseTurnItIs) {
  const DispatchInput input{alive_.size(), 2, experts_, alive_};
  memory_.credits.Sent("low-0", 100);
  for (int layer = 0; layer < 4; ++layer) {
    LayerDispatch dispatch(DispatchLimits{}, memory_);
    const auto sent = Sent(dispatch.Start(input, TwoPools(8), now_));
    EXPECT_TRUE(sent.contains("low-1")) << layer;
    for (const auto& [worker, call] : sent) dispatch.OnAnswer(call, 100, now_);
  }
}

TEST_F(DispatchTest, AReplicaThatComesInTimeSavesTheRows) {
  memory_.SetUp("high-0", false);
  EXPECT_THAT(Sent(Start(TwoPools(8))), SizeIs(1));
  PlacementView view = TwoPools(8);
  view.pools[1].replicas.push_back({"high-9", 9, "z"});
  memory_.SetUp("high-9", true);
  EXPECT_THAT(Sent(dispatch_.OnChange(view, now_ + base::Micros(5))), SizeIs(1));
}

TEST_F(DispatchTest, RefusedPlacementIsReplannedAtMostTwice) {
  auto sent = Sent(Start(TwoPools(8)));
  // The new placement moves experts 0 and 1 to "high".
  PlacementView moved = TwoPools(8, 2);
  moved.pools[0].experts = {{2, 4}};
  moved.pools[1].experts = {{0, 2}, {4, 8}};
  const std::string low = sent.contains("low-0") ? "low-0" : "low-1";
  const absl::Status refused = Error(Reason::kExpertNotHosted, "moved");
  auto actions = dispatch_.OnFailure(sent.at(low), refused, moved, now_);
  std::set<std::string> pools;
  uint64_t again = 0;
  for (const DispatchAction& a : actions) {
    ASSERT_EQ(a.kind, Kind::kSend);
    const Part& part = dispatch_.part(a.part);
    pools.insert(part.pool);
    if (part.pool == "low") {
      EXPECT_THAT(part.expert_ids, ElementsAre(2, 3));
      again = a.call_id;
    } else {
      EXPECT_THAT(part.expert_ids, ElementsAre(1));
    }
  }
  EXPECT_THAT(pools, ElementsAre("high", "low"));
  for (int i = 0; i < 2; ++i) {
    actions = dispatch_.OnFailure(again, refused, moved, now_);
    ASSERT_THAT(actions, SizeIs(1));
    again = actions[0].call_id;
  }
  EXPECT_EQ(actions[0].kind, Kind::kFailRows);
  EXPECT_EQ(base::ReasonOf(actions[0].status), Reason::kExpertNotHosted);
}

TEST_F(DispatchTest, ASilentWorkerFailsItsRowsAndCancelsTheCall) {
  Start(TwoPools(8));
  const auto actions = dispatch_.OnChange(TwoPools(8), now_ + DispatchLimits{}.call_timeout);
  size_t cancels = 0;
  size_t failures = 0;
  for (const DispatchAction& a : actions) {
    cancels += a.kind == Kind::kCancel ? 1 : 0;
    failures += a.kind == Kind::kFailRows ? 1 : 0;
  }
  EXPECT_EQ(cancels, 2u);
  EXPECT_EQ(failures, 2u);
  EXPECT_TRUE(dispatch_.done());
}

TEST_F(DispatchTest, ABadFrameIsNeverANumber) {
  const auto sent = Sent(Start(TwoPools(8)));
  const auto actions =
      dispatch_.OnFailure(sent.at("high-0"), Error(Reason::kNonFinite, "NaN"), TwoPools(8), now_);
  ASSERT_THAT(actions, SizeIs(1));
  EXPECT_EQ(actions[0].kind, Kind::kFailRows);
  EXPECT_EQ(base::ReasonOf(actions[0].status), Reason::kNonFinite);
}

TEST_F(DispatchTest, CreditsHoldBackWhatAWorkerDidNotOffer) {
  memory_.credits.Sent("high-0", 5);
  memory_.credits.Answered("high-0", 1, 0);  // four in flight, no more wanted
  const auto sent = Sent(Start(TwoPools(8)));
  EXPECT_FALSE(sent.contains("high-0"));
  memory_.credits.Answered("high-0", 4, 10);
  EXPECT_TRUE(Sent(dispatch_.OnChange(TwoPools(8), now_)).contains("high-0"));
}

TEST_F(DispatchTest, AGapInThePlacementFailsAtOnce) {
  PlacementView view = TwoPools(8);
  view.pools.pop_back();
  const auto actions = Start(view);
  ASSERT_THAT(actions, SizeIs(2));
  EXPECT_EQ(actions[0].kind, Kind::kFailRows);
  EXPECT_EQ(base::ReasonOf(actions[0].status), Reason::kExpertsUnavailable);
}

}  // namespace
}  // namespace expertmesh::attention_worker
