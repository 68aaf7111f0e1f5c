#include "attention-worker/core/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>

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
            Reason::kContextLengthExceeded);
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

BlockChain ChainOf(const std::vector<uint32_t>& tokens) {
  BlockChain chain(RootKey("secret", {}), Small().page_positions);
  chain.Extend(tokens);
  return chain;
}

// Computes everything that is planned into made-up pages, until the lane's prompt is done.
size_t Prefill(Scheduler& scheduler, uint64_t lane, std::vector<uint32_t>& pages, size_t length,
               uint32_t first_page) {
  size_t computed = 0;
  for (int step = 0; step < 100; ++step) {
    const StepPlan plan = scheduler.Plan();
    for (const StepStart& start : plan.started) {
      if (start.lane == LaneId{lane}) pages = start.pages;
    }
    for (const StepItem& item : plan.items) {
      if (item.lane != LaneId{lane}) continue;
      while (pages.size() * Small().page_positions < item.begin + item.count) {
        pages.push_back(first_page++);
      }
      for (const PageSwap& swap : scheduler.Computed(item, pages).swaps) {
        pages[swap.place] = swap.page;
      }
      computed += item.count;
      if (item.begin + item.count == length) return computed;
    }
  }
  ADD_FAILURE() << "the prompt never ends";
  return computed;
}

TEST(SchedulerTest, ALaneStartsBehindWhatTheCacheHasButComputesItsLastToken) {
  Scheduler scheduler(Small());
  const std::vector<uint32_t> tokens(16, 5);
  const BlockChain chain = ChainOf(tokens);
  std::vector<uint32_t> pages;
  ASSERT_TRUE(scheduler.Admit(LaneId{1}, 16, 20, base::kNever, &chain).ok());
  EXPECT_EQ(Prefill(scheduler, 1, pages, 16, 100), 16u);
  scheduler.Remove(LaneId{1});
  EXPECT_EQ(scheduler.pages_free(), Small().pages_total);
  EXPECT_EQ(scheduler.cache().blocks(), 4u);
  std::vector<uint32_t> second;
  ASSERT_TRUE(scheduler.Admit(LaneId{2}, 16, 20, base::kNever, &chain).ok());
  EXPECT_EQ(Prefill(scheduler, 2, second, 16, 200), 4u);
  // The last block was computed again and given up for the one that was there.
  EXPECT_EQ(second, pages);
  EXPECT_EQ(scheduler.pages_free(), Small().pages_total - 4);
  // Without a chain nothing is shared.
  std::vector<uint32_t> third;
  ASSERT_TRUE(scheduler.Admit(LaneId{3}, 16, 20, base::kNever).ok());
  EXPECT_EQ(Prefill(scheduler, 3, third, 16, 300), 16u);
  EXPECT_EQ(scheduler.pages_free(), Small().pages_total - 8);
}

// An engine's bookkeeping around a scheduler: pages with owners, lanes of random tokens.
class PageKeeper {
 public:
  explicit PageKeeper(const SchedulerOptions& options) : options_(options), scheduler_(options) {
    for (uint32_t p = 0; p < options.pages_total; ++p) free_.insert(p);
  }

  void Admit() {
    Lane lane;
    lane.tokens.resize(1 + rng_() % 18);
    for (uint32_t& token : lane.tokens) token = rng_() % 24 == 0;
    lane.wanted = lane.tokens.size() + 1 + rng_() % 12;
    lane.chain = std::make_unique<BlockChain>(RootKey("secret", {}), options_.page_positions);
    lane.chain->Extend(lane.tokens);
    const BlockChain* chain = rng_() % 4 == 0 ? nullptr : lane.chain.get();
    ASSERT_TRUE(
        scheduler_.Admit(LaneId{next_}, lane.tokens.size(), lane.wanted, base::kNever, chain).ok());
    lanes_.emplace(next_++, std::move(lane));
  }

  void Step() {
    const StepPlan plan = scheduler_.Plan();
    ASSERT_FALSE(plan.items.empty());
    TakeAndGive(plan);
    for (const StepItem& item : plan.items) Reserve(item);
    for (const StepItem& item : plan.items) Finish(item);
    std::set<uint32_t> held;
    for (const auto& [id, lane] : lanes_) held.insert(lane.pages.begin(), lane.pages.end());
    // What a plan has promised and no step has taken yet does not exist: every item was run.
    ASSERT_EQ(options_.pages_total - held.size(), free_.size() + scheduler_.cache().evictable());
  }

  size_t lanes() const { return lanes_.size(); }
  int finished = 0;
  int preempted = 0;
  size_t cached = 0;

 private:
  struct Lane {
    std::vector<uint32_t> tokens;
    std::unique_ptr<BlockChain> chain;
    std::vector<uint32_t> pages;
    size_t wanted = 0;
  };

  void Release(uint32_t page) {
    if (--owners_[page] == 0) free_.insert(page);
  }
  void Clear(Lane& lane) {
    for (uint32_t page : lane.pages) Release(page);
    lane.pages.clear();
  }

  void TakeAndGive(const StepPlan& plan) {
    for (LaneId lane : plan.preempted) Clear(lanes_.at(lane.value));
    preempted += static_cast<int>(plan.preempted.size());
    for (const StepStart& start : plan.started) {
      ASSERT_TRUE(lanes_.at(start.lane.value).pages.empty());
      lanes_.at(start.lane.value).pages = start.pages;
      for (uint32_t page : start.pages) ++owners_[page];
      cached += start.cached_tokens;
    }
  }

  void Reserve(const StepItem& item) {
    Lane& lane = lanes_.at(item.lane.value);
    while (lane.pages.size() * options_.page_positions < item.begin + item.count) {
      if (free_.empty()) {
        const auto page = scheduler_.EvictPage();
        ASSERT_TRUE(page) << "the plan promised a page that is not there";
        Release(*page);
      }
      ASSERT_FALSE(free_.empty()) << "an evicted page was a lane's";
      lane.pages.push_back(*free_.begin());
      owners_[*free_.begin()] = 1;
      free_.erase(free_.begin());
    }
  }

  void Finish(const StepItem& item) {
    Lane& lane = lanes_.at(item.lane.value);
    const CacheUpdate update = scheduler_.Computed(item, lane.pages);
    for (uint32_t page : update.kept) ++owners_[page];
    for (const PageSwap& swap : update.swaps) {
      ++owners_[swap.page];
      Release(lane.pages[swap.place]);
      lane.pages[swap.place] = swap.page;
    }
    if (!item.wants_logits) return;
    lane.tokens.push_back(rng_() % 24 == 0);
    lane.chain->Extend(lane.tokens);
    if (lane.tokens.size() < lane.wanted) {
      scheduler_.Grew(item.lane);
      return;
    }
    scheduler_.Remove(item.lane);
    Clear(lane);
    lanes_.erase(item.lane.value);
    ++finished;
  }

  const SchedulerOptions options_;
  Scheduler scheduler_;
  std::mt19937 rng_{3};
  std::map<uint64_t, Lane> lanes_;
  std::map<uint32_t, int> owners_;
  std::set<uint32_t> free_;
  uint64_t next_ = 1;
};

// Free, held and kept pages always add up, whatever lanes share, lose and end.
TEST(SchedulerTest, SharedPagesAreCountedOnce) {
  SchedulerOptions options = Small();
  options.pages_total = 12;
  options.preempt_every = 3;
  PageKeeper keeper(options);
  for (int step = 0; step < 6000 && !HasFatalFailure(); ++step) {
    if (keeper.lanes() < 3) keeper.Admit();
    keeper.Step();
  }
  EXPECT_GT(keeper.finished, 100);
  EXPECT_GT(keeper.preempted, 100);
  EXPECT_GT(keeper.cached, 100u);
}

TEST(SchedulerTest, AParkedLaneKeepsItsPagesUntilAnotherNeedsThem) {
  SchedulerOptions options = Small();
  options.pages_total = 6;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Admit(LaneId{1}, 8, 16, base::kNever).ok());
  scheduler.Computed(scheduler.Plan().items.at(0));
  scheduler.Grew(LaneId{1});
  scheduler.Park(LaneId{1}, Instant(500));
  EXPECT_EQ(scheduler.next_deadline(), Instant(500));
  EXPECT_TRUE(scheduler.idle());
  EXPECT_TRUE(scheduler.Plan().items.empty());
  EXPECT_EQ(scheduler.computed(LaneId{1}), 8u);
  EXPECT_EQ(scheduler.pages_free(), 4u);
  scheduler.Resume(LaneId{1}, base::kNever);
  StepPlan plan = scheduler.Plan();
  ASSERT_EQ(plan.items.size(), 1u);
  EXPECT_EQ(plan.items[0].begin, 8u);
  EXPECT_TRUE(plan.started.empty()) << "it went on, it did not start over";
  scheduler.Computed(plan.items[0]);
  scheduler.Grew(LaneId{1});
  scheduler.Park(LaneId{1}, Instant(500));
  // Five pages for another one: the parked lane gives way, and is recomputed when it goes on.
  ASSERT_TRUE(scheduler.Admit(LaneId{2}, 20, 21, base::kNever).ok());
  plan = scheduler.Plan();
  EXPECT_EQ(plan.preempted, (std::vector<LaneId>{LaneId{1}}));
  ASSERT_EQ(plan.items.size(), 1u);
  EXPECT_EQ(plan.items[0].lane, LaneId{2});
  EXPECT_EQ(scheduler.computed(LaneId{1}), 0u);
  scheduler.Remove(LaneId{2});
  scheduler.Resume(LaneId{1}, base::kNever);
  plan = scheduler.Plan();
  ASSERT_EQ(plan.items.size(), 1u);
  EXPECT_EQ(plan.items[0].begin, 0u);
  scheduler.Remove(LaneId{1});
  EXPECT_EQ(scheduler.pages_free(), options.pages_total);
}

TEST(SchedulerTest, ALaneThatComesInParkedGoesOnBehindItsState) {
  Scheduler scheduler(Small());
  ASSERT_TRUE(scheduler.AdmitParked(LaneId{1}, 10, 20, 9, base::kNever).ok());
  EXPECT_EQ(scheduler.pages_free(), Small().pages_total - 3);
  scheduler.Resume(LaneId{1}, base::kNever);
  const StepPlan plan = scheduler.Plan();
  ASSERT_EQ(plan.items.size(), 1u);
  EXPECT_EQ(plan.items[0].begin, 9u);
  EXPECT_TRUE(plan.items[0].wants_logits);
  EXPECT_EQ(base::ReasonOf(scheduler.AdmitParked(LaneId{2}, 128, 128, 127, base::kNever)),
            Reason::kKvExhausted);
  EXPECT_EQ(base::ReasonOf(scheduler.AdmitParked(LaneId{2}, 10, 1000, 9, base::kNever)),
            Reason::kContextLengthExceeded);
}

// Lanes that were resumed and hold all pages must not wait for each other.
TEST(SchedulerTest, ResumedLanesThatHoldEveryPageStillFinish) {
  SchedulerOptions options = Small();
  options.pages_total = 4;
  Scheduler scheduler(options);
  for (uint64_t lane = 1; lane <= 2; ++lane) {
    ASSERT_TRUE(scheduler.AdmitParked(LaneId{lane}, 9, 12, 8, base::kNever).ok());
  }
  EXPECT_EQ(scheduler.pages_free(), 0u);
  for (uint64_t lane = 1; lane <= 2; ++lane) scheduler.Resume(LaneId{lane}, base::kNever);
  std::map<uint64_t, size_t> known = {{1, 9}, {2, 9}};
  for (int step = 0; step < 40 && !scheduler.idle(); ++step) {
    const StepPlan plan = scheduler.Plan();
    ASSERT_FALSE(plan.items.empty()) << "step " << step;
    for (const StepItem& item : plan.items) {
      scheduler.Computed(item);
      if (!item.wants_logits) continue;
      if (++known[item.lane.value] == 12) {
        scheduler.Remove(item.lane);
      } else {
        scheduler.Grew(item.lane);
      }
    }
  }
  EXPECT_TRUE(scheduler.idle());
}

}  // namespace
}  // namespace expertmesh::attention_worker
