#include "attention-worker/expert_dispatcher.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "model/combine_tree.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Reason;
using transport::CombineFrame;
namespace metric = telemetry::metric;

ExpertDispatcher::ExpertDispatcher(Options options, const base::Clock& clock,
                                   telemetry::Metrics& metrics)
    : options_(std::move(options)),
      clock_(clock),
      buffers_(std::make_shared<transport::BufferPool>()),
      dispatch_bytes_(metrics.GetCounter(metric::kAttentionDispatchBytes)),
      retries_(metrics.GetCounter(metric::kAttentionDispatchRetries)),
      extra_partials_(metrics.GetCounter(metric::kAttentionExtraPartialRows)),
      layer_seconds_(metrics.GetHistogram(metric::kAttentionDispatchDuration, {{"leg", "layer"}})),
      imbalance_(metrics.GetGauge(metric::kAttentionGateImbalance)),
      epoch_(metrics.GetGauge(metric::kAttentionPlacementEpoch)) {
  memory_.turn = options_.first_turn;
}

ExpertDispatcher::~ExpertDispatcher() = default;

void ExpertDispatcher::SetView(const PlacementView& view) {
  std::map<std::string, Replica> wanted;
  for (const Pool& pool : view.pools) {
    for (const Replica& replica : pool.replicas) wanted[replica.name] = replica;
  }
  std::map<std::string, Replica> old;
  {
    std::lock_guard lock(mutex_);
    view_ = view;
    changed_ = true;
    old = std::exchange(peers_, wanted);
  }
  for (const auto& [name, replica] : old) {
    if (!wanted.contains(name)) transport_->RemovePeer(name);
  }
  for (const auto& [name, replica] : wanted) {
    transport_->AddPeer({name, replica.incarnation, replica.address, replica.frames});
  }
  bell_.Ring();
}

void ExpertDispatcher::SetPeerUp(const std::string& worker, bool up) {
  {
    std::lock_guard lock(mutex_);
    connection_changes_.emplace_back(worker, up);
    changed_ = true;
  }
  bell_.Ring();
}

PlacementView ExpertDispatcher::view() const {
  std::lock_guard lock(mutex_);
  return view_;
}

void ExpertDispatcher::NoteCancelled() {
  {
    std::lock_guard lock(mutex_);
    changed_ = true;
  }
  bell_.Ring();
}

// Why the lane needs no more work; OK if it does.
absl::Status ExpertDispatcher::EndOf(const StepLane& lane, base::Instant now) const {
  if (lane.cancelled != nullptr && lane.cancelled->load(std::memory_order_relaxed)) {
    return Error(Reason::kCancelled, "the caller went away");
  }
  if (lane.deadline <= now) {
    return Error(Reason::kDeadlineExceeded, "the request's time ran out");
  }
  return absl::OkStatus();
}

// While calls are out: lanes whose caller left or whose time is over free what only they wait for.
void ExpertDispatcher::DropUnwanted(Open& open) {
  const base::Instant now = clock_.Now();
  std::vector<uint8_t> unwanted(open.call.row_count, 0);
  absl::Status why;
  for (size_t row = 0; row < open.call.row_count; ++row) {
    absl::Status& failure = FailureOf(open, row);
    if (failure.ok() && open.alive[row]) failure = EndOf(lanes_[LaneOf(open, row)], now);
    if (failure.ok()) continue;
    open.alive[row] = 0;
    unwanted[row] = 1;
    why = failure;
  }
  if (!why.ok()) Perform(open, open.dispatch->OnUnwanted(unwanted, why));
}

void ExpertDispatcher::BeginStep(std::vector<StepLane> lanes, bool decode_only) {
  lanes_ = std::move(lanes);
  lane_of_row_.clear();
  for (uint32_t lane = 0; lane < lanes_.size(); ++lane) {
    lane_of_row_.insert(lane_of_row_.end(), lanes_[lane].row_count, lane);
  }
  failures_.assign(lane_of_row_.size(), absl::OkStatus());
  purpose_ = decode_only ? transport::Purpose::kDecode : transport::Purpose::kPrefill;
  step_view_ = view();  // a step uses one epoch
  epoch_.Set(static_cast<double>(step_view_.number));
  waited_ = base::Micros(0);
}

void ExpertDispatcher::TakeConnectionChanges() {
  std::vector<std::pair<std::string, bool>> changes;
  {
    std::lock_guard lock(mutex_);
    changes.swap(connection_changes_);
    changed_ = false;
  }
  for (const auto& [worker, up] : changes) memory_.SetUp(worker, up);
}

void ExpertDispatcher::Begin(const model::MoeCall& call) {
  TakeConnectionChanges();
  while (open_.size() <= call.micro_batch) open_.emplace_back();
  Open& open = open_[call.micro_batch];
  open.call = call;
  open.start = clock_.Now();
  open.alive.assign(call.alive.begin(), call.alive.end());
  for (size_t row = 0; row < call.row_count; ++row) {
    if (!open.alive[row]) continue;
    absl::Status& failure = FailureOf(open, row);
    failure = EndOf(lanes_[LaneOf(open, row)], open.start);
    open.alive[row] = failure.ok() ? 1 : 0;
  }
  open.dispatch = std::make_unique<LayerDispatch>(options_.limits, memory_);
  open.answers.clear();
  const DispatchInput input{call.row_count, call.top_k, call.expert_ids, open.alive};
  Perform(open, open.dispatch->Start(input, step_view_, open.start));
  Perform(open, open.dispatch->OnChange(view(), open.start));
  open.call.pool = nullptr;
  NoteImbalance(call);
}

void ExpertDispatcher::NoteImbalance(const model::MoeCall& call) {
  std::vector<uint32_t> rows(step_view_.expert_count);
  for (uint16_t expert : call.expert_ids) {
    if (expert < rows.size()) ++rows[expert];
  }
  if (rows.empty() || call.expert_ids.empty()) return;
  const double mean =
      static_cast<double>(call.expert_ids.size()) / static_cast<double>(rows.size());
  imbalance_.Set(*std::max_element(rows.begin(), rows.end()) / mean);
}

void ExpertDispatcher::Perform(Open& open, DispatchActions actions) {
  std::vector<const DispatchAction*> sends;
  for (const DispatchAction& action : actions) {
    switch (action.kind) {
      case DispatchAction::Kind::kSend:
        sends.push_back(&action);
        break;
      case DispatchAction::Kind::kCancel:
        transport_->Cancel(action.call_id);
        break;
      case DispatchAction::Kind::kFailRows:
        FailRows(open, open.dispatch->part(action.part), action.status);
        break;
    }
  }
  // A frame takes its sender some 10 to 30 µs, and the last worker waits for all of them.
  const auto send = [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) Send(open, *sends[i]);
  };
  if (open.call.pool != nullptr) return open.call.pool->ParallelFor(sends.size(), 1, send);
  send(0, sends.size(), 0);
}

std::vector<size_t> ExpertDispatcher::LanesOf(const Open& open, const Part& part) const {
  std::vector<size_t> lanes;
  for (uint32_t row : part.rows) {
    const size_t lane = LaneOf(open, row);
    if (lanes.empty() || lanes.back() != lane) lanes.push_back(lane);
  }
  return lanes;
}

void ExpertDispatcher::Send(const Open& open, const DispatchAction& action) {
  const model::MoeCall& call = open.call;
  const Part& part = open.dispatch->part(action.part);
  const PlacementView& view = open.dispatch->view();
  transport::DispatchHeader header;
  header.set_call_id(action.call_id);
  header.set_layer(call.layer);
  header.set_micro_batch(call.micro_batch);
  header.mutable_epoch()->set_term(view.term);
  header.mutable_epoch()->set_number(view.number);
  header.mutable_epoch()->set_content_hash(view.content_hash);
  header.mutable_model()->set_model(options_.model);
  header.mutable_model()->set_revision(options_.revision);
  header.set_profile(options_.profile.name);
  const base::Instant now = clock_.Now();
  for (size_t lane : LanesOf(open, part)) {
    const auto rows = std::count_if(part.rows.begin(), part.rows.end(),
                                    [&](uint32_t row) { return LaneOf(open, row) == lane; });
    header.add_lane_row_counts(static_cast<uint32_t>(rows));
    const int64_t left = lanes_[lane].deadline.us - now.us;
    header.add_lane_budgets_us(static_cast<uint32_t>(std::clamp<int64_t>(left, 0, UINT32_MAX)));
  }
  std::vector<float> weights(part.entries.size());
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = call.expert_weights[part.entries[i]];
  transport::DispatchFrame frame = transport::BuildDispatch(
      std::move(header), call.rows, call.hidden, part.rows, options_.profile.wire, part.row_offsets,
      part.expert_ids, weights, part.partials, *buffers_);
  dispatch_bytes_.Add(static_cast<double>(frame.payload.size()));
  transport_->Submit(action.worker, purpose_, std::move(frame),
                     [this, id = action.call_id](absl::StatusOr<CombineFrame> answer) {
                       {
                         std::lock_guard lock(mutex_);
                         mailbox_.push_back({id, std::move(answer)});
                       }
                       bell_.Ring();
                     });
}

void ExpertDispatcher::FailRows(Open& open, const Part& part, const absl::Status& status) {
  for (uint32_t row : part.rows) {
    open.alive[row] = 0;
    absl::Status& failure = FailureOf(open, row);
    if (failure.ok()) failure = status;
  }
}

void ExpertDispatcher::DropExpired(Open& open, size_t index,
                                   const transport::CombineHeader& header) {
  const Part& part = open.dispatch->part(index);
  const std::vector<size_t> lanes = LanesOf(open, part);
  for (size_t i = 0; i < lanes.size() && static_cast<int>(i) < header.lane_dropped_size(); ++i) {
    if (header.lane_dropped(static_cast<int>(i)) == 0) continue;
    for (uint32_t row : part.rows) {
      if (LaneOf(open, row) != lanes[i]) continue;
      open.alive[row] = 0;
      FailureOf(open, row) = Error(Reason::kDeadlineExceeded, "the request's time ran out");
    }
  }
}

void ExpertDispatcher::OnEvent(Event event) {
  for (Open& open : open_) {
    if (open.dispatch == nullptr) continue;
    LayerDispatch& dispatch = *open.dispatch;
    const size_t part = dispatch.PartOfCall(event.call_id);
    if (part == dispatch.part_count()) continue;
    const base::Instant now = clock_.Now();
    if (!event.answer.ok()) {
      Perform(open, dispatch.OnFailure(event.call_id, event.answer.status(), view(), now));
      return;
    }
    const size_t credit = event.answer->header.credit_rows();
    DropExpired(open, part, event.answer->header);
    if (open.answers.size() <= part) open.answers.resize(part + 1);
    open.answers[part] = *std::move(event.answer);
    Perform(open, dispatch.OnAnswer(event.call_id, credit, now));
    return;
  }  // else of an earlier layer, or cancelled
}

bool ExpertDispatcher::IsDue() const { return NextWake() <= clock_.Now(); }

// Of everything that is open: a call's, or the deadline of a row that still counts.
base::Instant ExpertDispatcher::NextWake() const {
  base::Instant next = base::kNever;
  for (const Open& open : open_) {
    if (open.dispatch == nullptr) continue;
    next = std::min(next, open.dispatch->next_wake());
    for (size_t row = 0; row < open.call.row_count; ++row) {
      if (open.alive[row]) next = std::min(next, lanes_[LaneOf(open, row)].deadline);
    }
  }
  return next;
}

// Sleeps until an event may be there, or time is due.
void ExpertDispatcher::WaitForEvent() {
  const base::Instant start = clock_.Now();
  const base::Instant wake = NextWake();
  std::optional<base::Micros> wait;
  if (wake != base::kNever) wait = std::max(base::Micros(0), wake - start);
  transport_->Wait(bell_, wait);
  waited_ += clock_.Now() - start;
}

// What has come in, for every micro-batch; waits if that is nothing.
void ExpertDispatcher::TakeEvents() {
  std::vector<Event> events;
  bool changed = false;
  {
    std::lock_guard lock(mutex_);
    events.swap(mailbox_);
    changed = changed_;
  }
  if (events.empty() && !changed && !IsDue()) return WaitForEvent();
  if (changed) TakeConnectionChanges();
  for (Event& event : events) OnEvent(std::move(event));
  for (Open& open : open_) {
    if (open.dispatch == nullptr) continue;
    DropUnwanted(open);
    Perform(open, open.dispatch->OnChange(view(), clock_.Now()));
  }
}

void ExpertDispatcher::Finish(uint32_t micro_batch, std::span<float> out,
                              std::span<uint8_t> alive) {
  Open& open = open_[micro_batch];
  while (!open.dispatch->done()) TakeEvents();
  retries_.Add(open.dispatch->resends());
  extra_partials_.Add(static_cast<double>(open.dispatch->extra_partials()));
  layer_seconds_.Observe(static_cast<double>((clock_.Now() - open.start).count()) * 1e-6);
  Sum(open, out, alive);
  const PlacementView& used = open.dispatch->view();
  if (std::pair(used.term, used.number) >= std::pair(step_view_.term, step_view_.number)) {
    step_view_ = used;  // a placement that was refused is not used again
  }
  open.dispatch.reset();
}

void ExpertDispatcher::Sum(const Open& open, std::span<float> out, std::span<uint8_t> alive) {
  const LayerDispatch& dispatch = *open.dispatch;
  const size_t hidden = open.call.hidden;
  struct Term {
    base::PartialNode node;
    const float* sum;
  };
  std::vector<std::vector<Term>> terms(open.call.row_count);
  for (size_t p = 0; p < dispatch.part_count(); ++p) {
    if (!dispatch.answered(p)) continue;
    const Part& part = dispatch.part(p);
    const std::span<const float> sums = open.answers[p].sums();
    for (size_t i = 0; i < part.partials.size(); ++i) {
      terms[part.rows[part.partials[i].row]].push_back(
          {part.partials[i], sums.data() + i * hidden});
    }
  }
  std::vector<base::PartialNode> nodes;
  std::vector<const float*> sums;
  for (size_t row = 0; row < open.call.row_count; ++row) {
    if (!open.alive[row]) alive[row] = 0;
    if (!alive[row]) continue;
    std::sort(terms[row].begin(), terms[row].end(), [](const Term& a, const Term& b) {
      return a.node.first_expert < b.node.first_expert;
    });
    nodes.clear();
    sums.clear();
    for (const Term& term : terms[row]) {
      nodes.push_back(term.node);
      sums.push_back(term.sum);
    }
    model::FinishTree(nodes, sums.data(), dispatch.view().expert_count,
                      out.subspan(row * hidden, hidden));
  }
}

}  // namespace expertmesh::attention_worker
