// Packs steps (docs/architecture.md §8): decoding lanes first, with a floor of prompt tokens so
// that prompts never starve; long prompts in chunks; the lane that is cheapest to recompute gives
// way when pages run out; a lane starts behind what the prefix cache has of it. Counts pages, owns
// none. Pure, one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "attention-worker/core/prefix_cache.h"
#include "services/base/clock.h"
#include "services/base/ids.h"

namespace expertmesh::attention_worker {

struct SchedulerOptions {
  size_t lanes_max = 16;      // lanes in one step
  size_t queue_max = 256;     // requests waiting; more are refused with QUEUE_FULL
  size_t step_tokens = 256;   // rows of one step
  size_t prefill_chunk = 64;  // rows of one lane in one step
  size_t prefill_floor = 16;  // rows kept for prompts when decoding lanes fill the step
  size_t page_positions = 64;
  size_t pages_total = 0;
  /// Every so many plans a decoding lane that has grown since its last start loses its pages; 0 =
  /// never. For the tests of recomputation.
  size_t preempt_every = 0;
};

/// Tokens [begin, begin + count) of a lane in a step.
struct StepItem {
  base::LaneId lane;
  size_t begin = 0;
  size_t count = 0;
  bool wants_logits = false;  // reaches the lane's last known token
};

/// A lane that starts, or starts over: with the state of `cached_tokens` in `pages`, which it
/// shares.
struct StepStart {
  base::LaneId lane;
  std::vector<uint32_t> pages;
  size_t cached_tokens = 0;
};

struct StepPlan {
  std::vector<StepItem> items;
  /// Lanes that lost their pages and start over; their state is to be cleared first.
  std::vector<base::LaneId> preempted;
  /// Then these are given their pages; a lane may be in both.
  std::vector<StepStart> started;
};

/// Another lane's page holds the same state as the lane's page at `place`: take that one.
struct PageSwap {
  size_t place = 0;
  uint32_t page = 0;
};

/// What the prefix cache made of a lane's full pages.
struct CacheUpdate {
  std::vector<uint32_t> kept;  // the lane's pages that the cache owns too from now on
  std::vector<PageSwap> swaps;
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options)
      : options_(options), pages_free_(options.pages_total) {}

  /// Queues a lane of `length` known tokens that may grow to `length_max`. kQueueFull, or
  /// kContextLengthExceeded if it could never fit. `chain`: the lane's blocks, kept up to date by
  /// the caller until Remove; nullptr = the lane shares no page.
  absl::Status Admit(base::LaneId lane, size_t length, size_t length_max, base::Instant deadline,
                     const BlockChain* chain = nullptr);
  /// A lane that comes parked from another worker, with the pages of `positions` computed tokens.
  /// kKvExhausted if they are not free now, kContextLengthExceeded if they never could be.
  absl::Status AdmitParked(base::LaneId lane, size_t length, size_t length_max, size_t positions,
                           base::Instant deadline, const BlockChain* chain = nullptr);
  /// The lane is planned no more until Resume, but keeps its pages; other lanes take them when none
  /// are free.
  void Park(base::LaneId lane, base::Instant deadline);
  /// Goes on with a parked lane.
  void Resume(base::LaneId lane, base::Instant deadline);
  /// Tokens of the lane whose state is in its pages.
  size_t computed(base::LaneId lane) const;
  /// The lane ended, failed or was cancelled. Unknown lanes are ignored.
  void Remove(base::LaneId lane);
  /// Lanes whose deadline has passed.
  std::vector<base::LaneId> Expired(base::Instant now) const;

  StepPlan Plan();
  /// The rows of an item were computed into the lane's pages, which are given for the cache.
  CacheUpdate Computed(const StepItem& item, std::span<const uint32_t> pages = {});
  /// A page of the cache that no lane uses; the caller asks when its free pages do not suffice for
  /// a plan. Nothing if there is none.
  std::optional<uint32_t> EvictPage() { return cache_.Evict(); }
  /// The lane got one more token.
  void Grew(base::LaneId lane);

  base::Instant next_deadline() const;
  bool idle() const { return waiting_.empty() && running_.empty(); }
  size_t waiting() const { return waiting_.size(); }
  size_t running() const { return running_.size(); }
  /// Pages that no lane holds, those of the cache among them.
  size_t pages_free() const { return pages_free_; }
  const PrefixCache& cache() const { return cache_; }

 private:
  struct Entry {
    base::LaneId lane;
    size_t length = 0;      // known tokens
    size_t computed = 0;    // of them in the lane state
    size_t pages = 0;       // held
    size_t shared = 0;      // of them the first ones, which the cache knows
    size_t started_at = 0;  // length at the last start
    base::Instant deadline;
    const BlockChain* chain = nullptr;
    bool decoding() const { return computed + 1 == length; }
  };
  using Entries = std::list<Entry>;

  size_t PagesFor(size_t tokens) const;
  bool Take(Entry& entry, size_t tokens);
  void GiveBack(Entry& entry);
  absl::Status CheckFits(size_t length_max) const;
  bool Start(Entry& entry, StepPlan& plan);
  void Preempt(Entries& from, Entries::iterator victim, StepPlan& plan);
  bool PreemptIdleFor(const Entry& entry, StepPlan& plan);
  bool PreemptFor(const Entry& entry, StepPlan& plan);
  void PreemptNow(StepPlan& plan);
  void StartWaiting(StepPlan& plan);
  void AddDecodes(StepPlan& plan, size_t budget);
  void AddPrefills(StepPlan& plan, size_t budget);

  const SchedulerOptions options_;
  size_t pages_free_;
  size_t plans_ = 0;
  PrefixCache cache_;
  Entries waiting_;  // in order of arrival; preempted lanes at the front
  Entries running_;  // in order of start
  Entries parked_;   // in order of parking
};

}  // namespace expertmesh::attention_worker
