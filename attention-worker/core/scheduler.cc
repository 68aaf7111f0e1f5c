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
  pages_free_ += entry.pages - entry.shared;
  if (entry.shared > 0) pages_free_ += cache_.Release(*entry.chain, entry.shared);
  entry.pages = 0;
  entry.shared = 0;
  entry.computed = 0;
}

absl::Status Scheduler::CheckFits(size_t length_max) const {
  if (PagesFor(length_max) <= options_.pages_total) return absl::OkStatus();
  return Error(Reason::kContextLengthExceeded,
               absl::StrCat("a sequence of ", length_max, " tokens needs ", PagesFor(length_max),
                            " pages, this worker has ", options_.pages_total,
                            "; ask for fewer tokens or raise --kv-pages"));
}

absl::Status Scheduler::Admit(LaneId lane, size_t length, size_t length_max, base::Instant deadline,
                              const BlockChain* chain) {
  EM_RETURN_IF_ERROR(CheckFits(length_max));
  if (waiting_.size() >= options_.queue_max) {
    return Error(Reason::kQueueFull,
                 absl::StrCat(waiting_.size(), " requests are waiting already"));
  }
  Entry entry;
  entry.lane = lane;
  entry.length = length;
  entry.deadline = deadline;
  entry.chain = chain;
  waiting_.push_back(entry);
  return absl::OkStatus();
}

absl::Status Scheduler::AdmitParked(LaneId lane, size_t length, size_t length_max, size_t positions,
                                    base::Instant deadline, const BlockChain* chain) {
  EM_RETURN_IF_ERROR(CheckFits(length_max));
  Entry entry;
  entry.lane = lane;
  entry.length = entry.started_at = length;
  entry.deadline = deadline;
  entry.chain = chain;
  if (!Take(entry, positions)) {
    return Error(Reason::kKvExhausted, absl::StrCat("the lane brings ", PagesFor(positions),
                                                    " pages, ", pages_free_, " are free"));
  }
  entry.computed = positions;
  parked_.push_back(entry);
  return absl::OkStatus();
}

void Scheduler::Park(LaneId lane, base::Instant deadline) {
  for (Entries* entries : {&waiting_, &running_}) {
    for (auto it = entries->begin(); it != entries->end(); ++it) {
      if (it->lane != lane) continue;
      it->deadline = deadline;
      parked_.splice(parked_.end(), *entries, it);
      return;
    }
  }
}

void Scheduler::Resume(LaneId lane, base::Instant deadline) {
  const auto it =
      std::find_if(parked_.begin(), parked_.end(), [&](const Entry& e) { return e.lane == lane; });
  if (it == parked_.end()) return;
  it->deadline = deadline;
  // Ahead of those that hold no pages yet: it is the cheapest to go on with.
  waiting_.splice(waiting_.begin(), parked_, it);
}

size_t Scheduler::computed(LaneId lane) const {
  for (const Entries* entries : {&waiting_, &running_, &parked_}) {
    for (const Entry& e : *entries) {
      if (e.lane == lane) return e.computed;
    }
  }
  return 0;
}

void Scheduler::Remove(LaneId lane) {
  for (Entries* entries : {&waiting_, &running_, &parked_}) {
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
  for (const Entries* entries : {&waiting_, &running_, &parked_}) {
    for (const Entry& e : *entries) {
      if (e.deadline <= now) expired.push_back(e.lane);
    }
  }
  return expired;
}

base::Instant Scheduler::next_deadline() const {
  base::Instant next = base::kNever;
  for (const Entries* entries : {&waiting_, &running_, &parked_}) {
    for (const Entry& e : *entries) next = std::min(next, e.deadline);
  }
  return next;
}

// A lane starts when all its known tokens fit, so that a long prompt does not stop half-way. Its
// last token is always computed: the next one comes from its logits.
bool Scheduler::Start(Entry& entry, StepPlan& plan) {
  if (entry.pages > 0) return Take(entry, entry.length);  // it was parked and has kept them
  StepStart start{entry.lane, {}, 0};
  const size_t found =
      entry.chain == nullptr
          ? 0
          : cache_.Match(*entry.chain, (entry.length - 1) / options_.page_positions);
  const size_t unheld = found == 0 ? 0 : cache_.Unheld(*entry.chain, found);
  if (PagesFor(entry.length) - found + unheld > pages_free_) return false;
  if (found > 0) start.pages = cache_.Hold(*entry.chain, found);
  pages_free_ -= unheld;
  entry.pages = entry.shared = found;
  entry.computed = start.cached_tokens = found * options_.page_positions;
  entry.started_at = entry.length;
  plan.started.push_back(std::move(start));
  return Take(entry, entry.length);
}

void Scheduler::StartWaiting(StepPlan& plan) {
  while (!waiting_.empty() && running_.size() < options_.lanes_max) {
    Entry& first = waiting_.front();
    bool fits = Start(first, plan);
    while (!fits && PreemptIdleFor(first, plan)) fits = Start(first, plan);
    if (!fits) return;
    running_.splice(running_.end(), waiting_, waiting_.begin());
  }
}

void Scheduler::Preempt(Entries& from, Entries::iterator victim, StepPlan& plan) {
  plan.preempted.push_back(victim->lane);
  std::erase_if(plan.started, [&](const StepStart& s) { return s.lane == victim->lane; });
  GiveBack(*victim);
  if (&from == &running_) waiting_.splice(waiting_.begin(), running_, victim);
}

// Only lanes that have grown: each gets on between two preemptions, however often they come.
void Scheduler::PreemptNow(StepPlan& plan) {
  if (options_.preempt_every == 0 || ++plans_ % options_.preempt_every != 0) return;
  const auto victim = std::find_if(running_.begin(), running_.end(), [](const Entry& e) {
    return e.decoding() && e.length > e.started_at;
  });
  if (victim != running_.end()) Preempt(running_, victim, plan);
}

// Takes the pages of a lane that is parked, or was and waits, never those of `entry`.
bool Scheduler::PreemptIdleFor(const Entry& entry, StepPlan& plan) {
  for (Entries* entries : {&parked_, &waiting_}) {
    const auto victim = std::find_if(entries->rbegin(), entries->rend(), [&](const Entry& e) {
      return e.pages > 0 && e.lane != entry.lane;
    });
    if (victim == entries->rend()) continue;
    Preempt(*entries, std::prev(victim.base()), plan);
    return true;
  }
  return false;
}

// If no idle lane has pages: those of the running lane that has computed the least.
bool Scheduler::PreemptFor(const Entry& entry, StepPlan& plan) {
  if (PreemptIdleFor(entry, plan)) return true;
  auto victim = running_.end();
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if (it->lane == entry.lane || it->pages == 0) continue;
    const bool planned = std::any_of(plan.items.begin(), plan.items.end(),
                                     [&](const StepItem& item) { return item.lane == it->lane; });
    if (planned) continue;
    if (victim == running_.end() || it->computed <= victim->computed) victim = it;
  }
  if (victim == running_.end()) return false;
  Preempt(running_, victim, plan);
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
  PreemptNow(plan);
  StartWaiting(plan);
  const bool prompts = std::any_of(running_.begin(), running_.end(),
                                   [](const Entry& e) { return e.computed + 1 < e.length; });
  const size_t floor = prompts ? std::min(options_.prefill_floor, options_.step_tokens / 2) : 0;
  AddDecodes(plan, options_.step_tokens - floor);
  AddPrefills(plan, options_.step_tokens - plan.items.size());
  return plan;
}

CacheUpdate Scheduler::Computed(const StepItem& item, std::span<const uint32_t> pages) {
  CacheUpdate update;
  const auto entry = std::find_if(running_.begin(), running_.end(),
                                  [&](const Entry& e) { return e.lane == item.lane; });
  if (entry == running_.end()) return update;
  entry->computed = item.begin + item.count;
  if (entry->chain == nullptr) return update;
  const size_t full = std::min(
      {entry->computed / options_.page_positions, entry->chain->blocks().size(), pages.size()});
  for (; entry->shared < full; ++entry->shared) {
    const size_t place = entry->shared;
    const auto inserted = cache_.Insert(*entry->chain, place, pages[place]);
    if (!inserted) break;
    if (!inserted->was_here) {
      update.kept.push_back(inserted->page);
      continue;
    }
    // The lane's own page becomes free; the other one is no longer, if nobody held it.
    if (inserted->was_held) ++pages_free_;
    update.swaps.push_back({place, inserted->page});
  }
  return update;
}

void Scheduler::Grew(LaneId lane) {
  for (Entry& e : running_) {
    if (e.lane == lane) ++e.length;
  }
}

}  // namespace expertmesh::attention_worker
