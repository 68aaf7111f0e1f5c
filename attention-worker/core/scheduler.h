// Packs steps (docs/architecture.md §8): decoding lanes first, with a floor of prompt tokens so
// that prompts never starve; long prompts in chunks; the lane that is cheapest to recompute gives
// way when pages run out. Counts pages, owns none. Pure, one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

#include "absl/status/status.h"
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
};

/// Tokens [begin, begin + count) of a lane in a step.
struct StepItem {
  base::LaneId lane;
  size_t begin = 0;
  size_t count = 0;
  bool wants_logits = false;  // reaches the lane's last known token
};

struct StepPlan {
  std::vector<StepItem> items;
  /// Lanes that lost their pages and start over; their state is to be cleared before the step.
  std::vector<base::LaneId> preempted;
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options)
      : options_(options), pages_free_(options.pages_total) {}

  /// Queues a lane of `length` known tokens that may grow to `length_max`. kQueueFull, or
  /// kKvExhausted if it could never fit.
  absl::Status Admit(base::LaneId lane, size_t length, size_t length_max, base::Instant deadline);
  /// The lane ended, failed or was cancelled. Unknown lanes are ignored.
  void Remove(base::LaneId lane);
  /// Lanes whose deadline has passed.
  std::vector<base::LaneId> Expired(base::Instant now) const;

  StepPlan Plan();
  /// The rows of an item were computed.
  void Computed(const StepItem& item);
  /// The lane got one more token.
  void Grew(base::LaneId lane);

  base::Instant next_deadline() const;
  bool idle() const { return waiting_.empty() && running_.empty(); }
  size_t waiting() const { return waiting_.size(); }
  size_t running() const { return running_.size(); }
  size_t pages_free() const { return pages_free_; }

 private:
  struct Entry {
    base::LaneId lane;
    size_t length = 0;    // known tokens
    size_t computed = 0;  // of them in the lane state
    size_t pages = 0;     // held
    base::Instant deadline;
    bool decoding() const { return computed + 1 == length; }
  };
  using Entries = std::list<Entry>;

  size_t PagesFor(size_t tokens) const;
  bool Take(Entry& entry, size_t tokens);
  void GiveBack(Entry& entry);
  bool PreemptFor(const Entry& entry, StepPlan& plan);
  void StartWaiting();
  void AddDecodes(StepPlan& plan, size_t budget);
  void AddPrefills(StepPlan& plan, size_t budget);

  const SchedulerOptions options_;
  size_t pages_free_;
  Entries waiting_;  // in order of arrival; preempted lanes at the front
  Entries running_;  // in order of start
};

}  // namespace expertmesh::attention_worker
