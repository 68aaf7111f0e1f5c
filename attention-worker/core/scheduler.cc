#include "attention-worker/core/scheduler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::LaneId;
using base::Reason;

size_t Scheduler::PagesFor(size_t tokens) const {
  return (tokens + options_.page_positions - 1) / options_.page_positions;
}

bool Scheduler::Take(Entry& entry, size_t tokens) {
  const size_t wanted = PagesFor(tokens);
  if (wanted <= entry.pages) return true;
  if (wanted - entry.pages > pages_free_) return false;
  pages_free_ -= wanted - entry.pages;
  entry.pages = wanted;
  return true;
}

void Scheduler::GiveBack(Entry& entry) {
  pages_free_ += entry.pages;
  entry.pages = 0;
  entry.computed = 0;
}

absl::Status Scheduler::Admit(LaneId lane, size_t length, size_t length_max,
                              base::Instant deadline) {
  if (PagesFor(length_max) > options_.pages_total) {
    return Error(Reason::kKvExhausted,
                 absl::StrCat("a sequence of ", length_max, " tokens needs ", PagesFor(length_max),
                              " pages, this worker has ", options_.pages_total,
                              "; ask for fewer tokens or raise --kv-pages"));
  }
  if (waiting_.size() >= options_.queue_max) {
    return Error(Reason::kQueueFull,
                 absl::StrCat(waiting_.size(), " requests are waiting already"));
  }
  Entry entry;
  entry.lane = lane;
  entry.length = length;
  entry.deadline = deadline;
  waiting_.push_back(entry);
  return absl::OkStatus();
}

void Scheduler::Remove(LaneId lane) {
  for (Entries* entries : {&waiting_, &running_}) {
    for (auto it = entries->begin(); it != entries->end(); ++it) {
      if (it->lane != lane) continue;
      GiveBack(*it);
      entries->erase(it);
      return;
    }
  }
}

std::vector<LaneId> Scheduler::Expired(base::Instant now) const {
  std::vector<LaneId> expired;
  for (const Entries* entries : {&waiting_, &running_}) {
    for (const Entry& e : *entries) {
      if (e.deadline <= now) expired.push_back(e.lane);
    }
  }
  return expired;
}

base::Instant Scheduler::next_deadline() const {
  base::Instant next = base::kNever;
  for (const Entries* entries : {&waiting_, &running_}) {
    for (const Entry& e : *entries) next = std::min(next, e.deadline);
  }
  return next;
}

void Scheduler::StartWaiting() {
  while (!waiting_.empty() && running_.size() < options_.lanes_max) {
    // A lane starts when all its known tokens fit, so that a long prompt does not stop half-way.
    if (!Take(waiting_.front(), waiting_.front().length)) return;
    running_.splice(running_.end(), waiting_, waiting_.begin());
  }
}

// Takes the pages of the running lane that has computed the least, never those of `entry`.
bool Scheduler::PreemptFor(const Entry& entry, StepPlan& plan) {
  auto victim = running_.end();
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if (it->lane == entry.lane || it->pages == 0) continue;
    const bool planned = std::any_of(plan.items.begin(), plan.items.end(),
                                     [&](const StepItem& item) { return item.lane == it->lane; });
    if (planned) continue;
    if (victim == running_.end() || it->computed <= victim->computed) victim = it;
  }
  if (victim == running_.end()) return false;
  plan.preempted.push_back(victim->lane);
  GiveBack(*victim);
  waiting_.splice(waiting_.begin(), running_, victim);
  return true;
}

void Scheduler::AddDecodes(StepPlan& plan, size_t budget) {
  // Preemption moves entries between the lists; `next` stays valid because only unplanned others
  // move.
  std::vector<LaneId> lanes;
  for (const Entry& e : running_) {
    if (e.decoding()) lanes.push_back(e.lane);
  }
  for (LaneId lane : lanes) {
    if (plan.items.size() >= budget) return;
    const auto it = std::find_if(running_.begin(), running_.end(),
                                 [&](const Entry& e) { return e.lane == lane; });
    if (it == running_.end()) continue;  // preempted by an earlier lane of this step
    bool fits = Take(*it, it->length);
    while (!fits && PreemptFor(*it, plan)) fits = Take(*it, it->length);
    if (fits) plan.items.push_back({lane, it->computed, 1, true});
  }
}

void Scheduler::AddPrefills(StepPlan& plan, size_t budget) {
  for (Entry& e : running_) {
    if (budget == 0) return;
    if (e.decoding() || e.computed >= e.length) continue;
    if (!Take(e, e.length)) continue;
    const size_t count = std::min({e.length - e.computed, options_.prefill_chunk, budget});
    plan.items.push_back({e.lane, e.computed, count, e.computed + count == e.length});
    budget -= count;
  }
}

StepPlan Scheduler::Plan() {
  StepPlan plan;
  StartWaiting();
  const bool prompts = std::any_of(running_.begin(), running_.end(),
                                   [](const Entry& e) { return e.computed + 1 < e.length; });
  const size_t floor = prompts ? std::min(options_.prefill_floor, options_.step_tokens / 2) : 0;
  AddDecodes(plan, options_.step_tokens - floor);
  AddPrefills(plan, options_.step_tokens - plan.items.size());
  return plan;
}

void Scheduler::Computed(const StepItem& item) {
  for (Entry& e : running_) {
    if (e.lane == item.lane) e.computed = item.begin + item.count;
  }
}

void Scheduler::Grew(LaneId lane) {
  for (Entry& e : running_) {
    if (e.lane == lane) ++e.length;
  }
}

}  // namespace expertmesh::attention_worker
