#include "attention-worker/core/scheduler.h"

#include <gtest/gtest.h>

#include <map>

#include "services/base/status.h"

namespace expertmesh::attention_worker {
namespace {

using base::Instant;
using base::LaneId;
using base::Reason;

SchedulerOptions Small() {
  SchedulerOptions options;
  options.lanes_max = 4;
  options.queue_max = 3;
  options.step_tokens = 32;
  options.prefill_chunk = 8;
  options.prefill_floor = 4;
  options.page_positions = 4;
  options.pages_total = 32;
  return options;
}

// Runs plans until every lane reached its wanted length; returns how often each lane was preempted.
std::map<uint64_t, int> RunAll(Scheduler& scheduler, std::map<uint64_t, size_t> wanted,
                               std::map<uint64_t, size_t> known, int steps_max) {
  std::map<uint64_t, int> preempted;
  std::map<uint64_t, size_t> computed;
  for (int step = 0; step < steps_max && !scheduler.idle(); ++step) {
    const StepPlan plan = scheduler.Plan();
    for (LaneId lane : plan.preempted) {
      ++preempted[lane.value];
      computed[lane.value] = 0;
    }
    for (const StepItem& item : plan.items) {
      EXPECT_EQ(item.begin, computed[item.lane.value]) << "lane " << item.lane.value;
      computed[item.lane.value] += item.count;
      EXPECT_EQ(item.wants_logits, computed[item.lane.value] == known[item.lane.value]);
      scheduler.Computed(item);
      if (!item.wants_logits) continue;
      if (++known[item.lane.value] == wanted[item.lane.value]) {
        scheduler.Remove(item.lane);
      } else {
        scheduler.Grew(item.lane);
      }
    }
  }
  EXPECT_TRUE(scheduler.idle());
  return preempted;
}

TEST(SchedulerTest, PromptsGoInChunksAndOnlyTheLastWantsLogits) {
  Scheduler scheduler(Small());
  ASSERT_TRUE(scheduler.Admit(LaneId{1}, 18, 20, base::kNever).ok());
  std::vector<size_t> counts;
  for (int i = 0; i < 3; ++i) {
    const StepPlan plan = scheduler.Plan();
    ASSERT_EQ(plan.items.size(), 1u);
    counts.push_back(plan.items[0].count);
    EXPECT_EQ(plan.items[0].wants_logits, i == 2);
    scheduler.Computed(plan.items[0]);
  }
  EXPECT_EQ(counts, (std::vector<size_t>{8, 8, 2}));
}

TEST(SchedulerTest, DecodingLanesLeaveAFloorForPrompts) {
  SchedulerOptions options = Small();
  options.step_tokens = 6;
  options.lanes_max = 8;
  options.queue_max = 8;
  options.pages_total = 64;
  Scheduler scheduler(options);
  for (uint64_t lane = 1; lane <= 6; ++lane) {
    ASSERT_TRUE(scheduler.Admit(LaneId{lane}, 1, 8, base::kNever).ok());
  }
  ASSERT_TRUE(scheduler.Admit(LaneId{7}, 20, 24, base::kNever).ok());
  const StepPlan plan = scheduler.Plan();
  size_t prompt_rows = 0;
  for (const StepItem& item : plan.items) prompt_rows += item.lane == LaneId{7} ? item.count : 0;
  EXPECT_GE(prompt_rows, 3u);
}

TEST(SchedulerTest, PagesRunningOutPreemptsAndEveryLaneStillFinishes) {
  SchedulerOptions options = Small();
  options.pages_total = 8;  // 32 positions for three lanes that grow to 24
  Scheduler scheduler(options);
  std::map<uint64_t, size_t> known;
  std::map<uint64_t, size_t> wanted;
  for (uint64_t lane = 1; lane <= 3; ++lane) {
    ASSERT_TRUE(scheduler.Admit(LaneId{lane}, 8, 24, base::kNever).ok());
    known[lane] = 8;
    wanted[lane] = 24;
  }
  const auto preempted = RunAll(scheduler, wanted, known, 400);
  EXPECT_FALSE(preempted.empty());
  EXPECT_EQ(scheduler.pages_free(), options.pages_total);
}

TEST(SchedulerTest, RefusesWhatCanNeverFitAndWhatTheQueueCannotHold) {
  Scheduler scheduler(Small());
  EXPECT_EQ(base::ReasonOf(scheduler.Admit(LaneId{1}, 10, 1000, base::kNever)),
            Reason::kKvExhausted);
  for (uint64_t lane = 1; lane <= 3; ++lane) {
    EXPECT_TRUE(scheduler.Admit(LaneId{lane}, 1, 2, base::kNever).ok());
  }
  EXPECT_EQ(base::ReasonOf(scheduler.Admit(LaneId{4}, 1, 2, base::kNever)), Reason::kQueueFull);
}

TEST(SchedulerTest, RemovingALaneGivesItsPagesBack) {
  Scheduler scheduler(Small());
  ASSERT_TRUE(scheduler.Admit(LaneId{1}, 16, 17, base::kNever).ok());
  scheduler.Computed(scheduler.Plan().items.at(0));
  EXPECT_LT(scheduler.pages_free(), Small().pages_total);
  scheduler.Remove(LaneId{1});
  EXPECT_EQ(scheduler.pages_free(), Small().pages_total);
  EXPECT_TRUE(scheduler.idle());
}

TEST(SchedulerTest, NamesExpiredLanesAndTheNextDeadline) {
  Scheduler scheduler(Small());
  ASSERT_TRUE(scheduler.Admit(LaneId{1}, 1, 2, Instant{100}).ok());
  ASSERT_TRUE(scheduler.Admit(LaneId{2}, 1, 2, Instant{50}).ok());
  EXPECT_EQ(scheduler.next_deadline(), Instant{50});
  EXPECT_EQ(scheduler.Expired(Instant{50}), std::vector<LaneId>{LaneId{2}});
}

}  // namespace
}  // namespace expertmesh::attention_worker
