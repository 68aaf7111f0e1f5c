#include "attention-worker/core/dispatch.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Instant;
using base::Reason;

namespace {

constexpr uint16_t kNoPart = UINT16_MAX;

bool IsPlacementRefusal(Reason reason) {
  return reason == Reason::kExpertNotHosted || reason == Reason::kEpochStale ||
         reason == Reason::kEpochMismatch;
}
// The next replica may do better: the call is pure, so it can be sent again.
bool IsRetryable(Reason reason) {
  return reason == Reason::kPeerLost || reason == Reason::kQueueFull ||
         reason == Reason::kDraining || reason == Reason::kFrameChecksum ||
         reason == Reason::kNotReady;
}

}  // namespace

DispatchActions LayerDispatch::Start(const DispatchInput& input, const PlacementView& view,
                                     Instant now) {
  input_ = input;
  view_ = view;
  owner_.assign(input.row_count * input.top_k, kNoPart);
  std::vector<uint32_t> rows;
  for (uint32_t row = 0; row < input.row_count; ++row) {
    if (input.alive[row]) rows.push_back(row);
  }
  DispatchActions actions;
  Plan(rows, parts_.size(), 0, now, actions);
  Advance(now, actions);
  return actions;
}

// Gives the experts that belong to `old_part` (all of them at the start) to one new part per pool,
// then folds each row's tree over the new owners.
void LayerDispatch::Plan(std::span<const uint32_t> rows, size_t old_part, int refreshes,
                         Instant now, DispatchActions& actions) {
  const std::vector<uint16_t> pool_of = view_.PoolOfExpert();
  const uint16_t from = old_part < parts_.size() ? static_cast<uint16_t>(old_part) : kNoPart;
  std::map<uint16_t, size_t> part_of_pool;
  const size_t first_new = parts_.size();
  for (uint32_t row : rows) {
    for (size_t k = 0; k < input_.top_k; ++k) {
      const size_t entry = row * input_.top_k + k;
      if (owner_[entry] != from) continue;
      const uint16_t expert = input_.expert_ids[entry];
      const uint16_t pool = expert < pool_of.size() ? pool_of[expert] : PlacementView::kNoPool;
      const auto [it, added] = part_of_pool.try_emplace(pool, parts_.size());
      if (added) {
        PartState& state = parts_.emplace_back();
        state.part.row_offsets.push_back(0);
        state.since = now;
        state.refreshes = refreshes;
        if (pool != PlacementView::kNoPool) state.part.pool = view_.pools[pool].name;
        ++open_;
      }
      owner_[entry] = static_cast<uint16_t>(it->second);
      Part& part = parts_[it->second].part;
      if (part.rows.empty() || part.rows.back() != row) {
        part.rows.push_back(row);
        part.row_offsets.push_back(part.row_offsets.back());
      }
      part.expert_ids.push_back(expert);
      part.entries.push_back(static_cast<uint32_t>(entry));
      ++part.row_offsets.back();
    }
  }
  for (size_t p = first_new; p < parts_.size(); ++p) {
    Part& part = parts_[p].part;
    for (uint32_t i = 0; i < part.rows.size(); ++i) {
      const size_t at = part.rows[i] * input_.top_k;
      base::FoldRow(i, input_.expert_ids.subspan(at, input_.top_k),
                    std::span<const uint16_t>(owner_).subspan(at, input_.top_k),
                    static_cast<uint16_t>(p), view_.expert_count, part.partials);
    }
    if (part.pool.empty()) {
      Fail(parts_[p], p,
           Error(Reason::kExpertsUnavailable, "the placement hosts none of the chosen experts"),
           actions);
    }
  }
}

const Pool* LayerDispatch::PoolNamed(const std::string& name) const {
  for (const Pool& pool : view_.pools) {
    if (pool.name == name) return &pool;
  }
  return nullptr;
}

absl::Status LayerDispatch::Unavailable(const PartState& part) const {
  return Error(Reason::kExpertsUnavailable,
               absl::StrCat("no live replica hosts experts ", part.part.pool),
               {{"experts", part.part.pool}});
}

void LayerDispatch::Fail(PartState& part, size_t index, const absl::Status& status,
                         DispatchActions& actions) {
  part.state = State::kFailed;
  --open_;
  DispatchAction action;
  action.kind = DispatchAction::Kind::kFailRows;
  action.part = index;
  action.status = status;
  actions.push_back(std::move(action));
}

// The least loaded replica with credit that was not tried yet; of equals, the one whose turn it is.
const Replica* LayerDispatch::Choose(const PartState& part, bool& any_up) const {
  const Pool* pool = PoolNamed(part.part.pool);
  const Replica* best = nullptr;
  const size_t count = pool == nullptr ? 0 : pool->replicas.size();
  for (size_t r = 0; r < count; ++r) {
    const Replica& replica = pool->replicas[(r + turn_) % count];
    const auto& tried = part.tried;
    if (std::find(tried.begin(), tried.end(), replica.name) != tried.end()) continue;
    if (!credits_.up(replica.name)) continue;
    any_up = true;
    if (!credits_.CanSend(replica.name, part.part.rows.size())) continue;
    if (best == nullptr || credits_.in_flight(replica.name) < credits_.in_flight(best->name)) {
      best = &replica;
    }
  }
  return best;
}

void LayerDispatch::TrySend(PartState& part, size_t index, Instant now, DispatchActions& actions) {
  bool any_up = false;
  const Replica* best = Choose(part, any_up);
  if (any_up) memory_.lost_since.erase(part.part.pool);
  if (best == nullptr && any_up) {
    // Credits come back with answers, so only the call timeout bounds that wait.
    part.wake = part.since + limits_.call_timeout;
  } else if (best == nullptr) {
    part.tried.clear();  // a replica that comes back may be asked again
    part.wake =
        memory_.lost_since.try_emplace(part.part.pool, now).first->second + limits_.wait_max;
  }
  if (best == nullptr) {
    if (now >= part.wake) Fail(part, index, Unavailable(part), actions);
    return;
  }
  part.state = State::kInFlight;
  part.worker = best->name;
  part.call_id = memory_.next_call_id++;
  part.since = now;
  part.wake = now + limits_.call_timeout;
  credits_.Sent(part.worker, part.part.rows.size());
  DispatchAction action;
  action.part = index;
  action.call_id = part.call_id;
  action.worker = part.worker;
  actions.push_back(std::move(action));
}

void LayerDispatch::Advance(Instant now, DispatchActions& actions) {
  for (size_t i = 0; i < parts_.size(); ++i) {
    PartState& part = parts_[i];
    if (part.state == State::kInFlight && now >= part.wake) {
      credits_.Ended(part.worker, part.part.rows.size());
      DispatchAction cancel;
      cancel.kind = DispatchAction::Kind::kCancel;
      cancel.call_id = part.call_id;
      actions.push_back(std::move(cancel));
      Fail(part, i,
           Error(Reason::kExpertsUnavailable,
                 absl::StrCat("worker ", part.worker, " did not answer in time"),
                 {{"worker", part.worker}}),
           actions);
    } else if (part.state == State::kWaiting) {
      TrySend(part, i, now, actions);
    }
  }
}

size_t LayerDispatch::PartOfCall(uint64_t call_id) const {
  size_t i = 0;
  while (i < parts_.size() &&
         (parts_[i].state != State::kInFlight || parts_[i].call_id != call_id)) {
    ++i;
  }
  return i;
}

DispatchActions LayerDispatch::OnAnswer(uint64_t call_id, size_t credit_rows, Instant now) {
  DispatchActions actions;
  const size_t i = PartOfCall(call_id);
  if (i == parts_.size()) return actions;
  credits_.Answered(parts_[i].worker, parts_[i].part.rows.size(), credit_rows);
  parts_[i].state = State::kAnswered;
  --open_;
  Advance(now, actions);
  return actions;
}

DispatchActions LayerDispatch::OnFailure(uint64_t call_id, const absl::Status& status,
                                         const PlacementView& view, Instant now) {
  DispatchActions actions;
  const size_t i = PartOfCall(call_id);
  if (i == parts_.size()) return actions;
  PartState& part = parts_[i];
  credits_.Ended(part.worker, part.part.rows.size());
  const Reason reason = base::ReasonOf(status);
  if (IsPlacementRefusal(reason) && part.refreshes < limits_.refresh_max) {
    view_ = view;
    part.state = State::kReplanned;
    --open_;
    ++resends_;
    const std::vector<uint32_t> rows = part.part.rows;
    const int refreshes = part.refreshes + 1;
    Plan(rows, i, refreshes, now, actions);  // invalidates `part`
  } else if (IsRetryable(reason)) {
    part.tried.push_back(part.worker);
    part.state = State::kWaiting;
    part.since = now;
    ++resends_;
  } else {
    Fail(part, i, status, actions);
  }
  Advance(now, actions);
  return actions;
}

DispatchActions LayerDispatch::OnChange(const PlacementView& view, Instant now) {
  // A step uses one epoch: only the replicas of its pools follow the view.
  for (Pool& pool : view_.pools) {
    for (const Pool& now_pool : view.pools) {
      if (now_pool.name == pool.name) pool.replicas = now_pool.replicas;
    }
  }
  DispatchActions actions;
  Advance(now, actions);
  return actions;
}

DispatchActions LayerDispatch::OnUnwanted(std::span<const uint8_t> unwanted,
                                          const absl::Status& status) {
  DispatchActions actions;
  for (size_t i = 0; i < parts_.size(); ++i) {
    PartState& part = parts_[i];
    if (part.state != State::kInFlight && part.state != State::kWaiting) continue;
    const std::vector<uint32_t>& rows = part.part.rows;
    if (!std::all_of(rows.begin(), rows.end(), [&](uint32_t row) { return unwanted[row] != 0; })) {
      continue;
    }
    if (part.state == State::kInFlight) {
      credits_.Ended(part.worker, rows.size());
      DispatchAction cancel;
      cancel.kind = DispatchAction::Kind::kCancel;
      cancel.call_id = part.call_id;
      actions.push_back(std::move(cancel));
    }
    Fail(part, i, status, actions);
  }
  return actions;
}

Instant LayerDispatch::next_wake() const {
  Instant wake = base::kNever;
  for (const PartState& part : parts_) {
    if (part.state == State::kInFlight || part.state == State::kWaiting) {
      wake = std::min(wake, part.wake);
    }
  }
  return wake;
}

size_t LayerDispatch::extra_partials() const {
  size_t extra = 0;
  for (const PartState& p : parts_) extra += p.part.partials.size() - p.part.rows.size();
  return extra;
}

}  // namespace expertmesh::attention_worker
