#include "expert-worker/expert_engine.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "expert-worker/core/merge.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::expert_worker {

using base::Error;
using base::Reason;
using transport::Buffer;
using transport::DispatchFrame;
using transport::Reply;
namespace metric = telemetry::metric;

namespace {

constexpr uint32_t kLayersMax = 1024;
// What the thread that brings a call may compute itself; it is missing elsewhere for so long.
constexpr size_t kInlineRowsMax = 64;
constexpr int kInlineBatchesMax = 8;

// The bytes are wrong, rather than the moment or the address.
bool IsBadInput(Reason reason) {
  return reason == Reason::kFrameVersion || reason == Reason::kFrameMalformed ||
         reason == Reason::kFrameChecksum || reason == Reason::kNonFinite;
}

}  // namespace

ExpertEngine::ExpertEngine(std::unique_ptr<model::ExpertSlice> slice, Options options,
                           const base::Clock& clock, telemetry::Metrics& metrics)
    : slice_(std::move(slice)),
      options_(std::move(options)),
      clock_(clock),
      metrics_(metrics),
      buffers_(std::make_shared<transport::BufferPool>()),
      pool_(options_.threads),
      batcher_(options_.limits),
      rows_counter_(metrics.GetCounter(metric::kExpertRows)),
      expert_rows_counter_(metrics.GetCounter(metric::kExpertRowPairs)),
      batch_rows_(metrics.GetHistogram(metric::kExpertBatchRows)),
      compute_seconds_(metrics.GetHistogram(metric::kExpertComputeSeconds)),
      queue_rows_(metrics.GetGauge(metric::kExpertQueueRows)),
      thread_([this] { Run(); }) {
  uint32_t hosted = 0;
  for (uint32_t e = 0; e < slice_->expert_count(); ++e) hosted += slice_->Hosts(e) ? 1 : 0;
  metrics.GetGauge(metric::kExpertResidentExperts).Set(hosted);
  metrics.GetGauge(metric::kExpertResidentBytes).Set(static_cast<double>(slice_->weight_bytes()));
}

ExpertEngine::~ExpertEngine() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return !serving_; });
}

bool ExpertEngine::Call::alive(size_t lane, base::Instant now) const {
  return now < arrival + base::Micros(frame.header.lane_budgets_us(static_cast<int>(lane)));
}

absl::Status ExpertEngine::CheckHosted(const base::ExpertBatch& batch) const {
  std::vector<uint16_t> missing;
  for (uint16_t expert : batch.expert_ids) {
    if (expert >= slice_->expert_count() || !slice_->Hosts(expert)) missing.push_back(expert);
  }
  if (missing.empty()) return absl::OkStatus();
  std::sort(missing.begin(), missing.end());
  missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
  const std::string ids = absl::StrJoin(missing, ",");
  return Error(Reason::kExpertNotHosted, absl::StrCat("experts not hosted here: ", ids),
               {{"experts", ids}});
}

absl::StatusOr<base::ExpertBatch> ExpertEngine::Check(const DispatchFrame& frame) const {
  const transport::DispatchHeader& h = frame.header;
  EM_ASSIGN_OR_RETURN(const base::ExpertBatch batch, transport::CheckDispatch(frame));
  if (h.model().revision() != slice_->revision()) {
    return Error(Reason::kModelNotFound,
                 absl::StrCat("revision ", h.model().revision(), " is not served here, but ",
                              slice_->revision()));
  }
  if (h.profile() != slice_->profile().name || batch.row_dtype != slice_->profile().wire) {
    return Error(Reason::kProfileMismatch,
                 absl::StrCat("profile ", h.profile(), " meets ", slice_->profile().name));
  }
  if (h.hidden_size() != slice_->hidden_size()) {
    return Error(Reason::kFrameMalformed,
                 absl::StrCat("hidden_size ", h.hidden_size(), " is not the model's ",
                              slice_->hidden_size()));
  }
  if (!slice_->HasRoutedExperts(h.layer())) {
    return Error(Reason::kFrameMalformed,
                 absl::StrCat("layer ", h.layer(), " has no routed experts"));
  }
  {
    std::lock_guard lock(mutex_);
    EM_RETURN_IF_ERROR(
        epochs_.Admit({h.epoch().term(), h.epoch().number(), h.epoch().content_hash()}));
  }
  EM_RETURN_IF_ERROR(CheckHosted(batch));
  return batch;
}

void ExpertEngine::Refuse(uint64_t call_id, const absl::Status& status, const Reply& reply) {
  const Reason reason = base::ReasonOf(status);
  const telemetry::Metrics::Labels labels = {{"reason", std::string(base::ReasonName(reason))}};
  metrics_.GetCounter(metric::kExpertRefused, labels).Add();
  if (IsBadInput(reason)) metrics_.GetCounter(metric::kBadInput, labels).Add();
  reply(transport::BuildRefusal(call_id, status));
}

void ExpertEngine::Queue(absl::StatusOr<DispatchFrame> frame, Reply reply) {
  if (!frame.ok()) {
    Refuse(0, frame.status(), reply);
    return;
  }
  const uint64_t call_id = frame->header.call_id();
  const auto batch = Check(*frame);
  if (!batch.ok()) {
    Refuse(call_id, batch.status(), reply);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    const uint64_t ticket = next_ticket_++;
    if (batcher_.Offer({ticket, batch->layer, static_cast<uint32_t>(batch->row_count)})) {
      // Moving the frame moves the payload's pointer, not its bytes: `batch` stays valid.
      calls_.emplace(ticket, Call{*std::move(frame), *batch, std::move(reply), clock_.Now()});
      queue_rows_.Set(static_cast<double>(batcher_.queued_rows()));
      return;
    }
  }
  Refuse(call_id, Error(Reason::kQueueFull, "the row queue of this worker is full"), reply);
}

void ExpertEngine::Learn(const EpochId& epoch) {
  std::lock_guard lock(mutex_);
  epochs_.Learn(epoch);
  metrics_.GetGauge(metric::kExpertPlacementEpoch).Set(static_cast<double>(epoch.number));
}

// A few batches on this thread; what is left afterwards is the engine thread's.
void ExpertEngine::ServeQueued() {
  std::unique_lock lock(mutex_);
  if (stop_ || serving_ || batcher_.queued_rows() == 0) return;  // who serves looks again
  for (int i = 0; i < kInlineBatchesMax && !stop_ && batcher_.queued_rows() > 0 &&
                  batcher_.queued_rows() <= kInlineRowsMax;
       ++i) {
    ServeNextLocked(lock);
  }
  if (stop_ || batcher_.queued_rows() > 0) wake_.notify_all();
}

void ExpertEngine::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || (!serving_ && batcher_.queued_rows() > 0); });
    if (stop_) return;
    ServeNextLocked(lock);
  }
}

// Computes the next batch without the lock, which is held again at the end.
void ExpertEngine::ServeNextLocked(std::unique_lock<std::mutex>& lock) {
  std::vector<Call> calls;
  for (uint64_t ticket : batcher_.Next()) {
    const auto it = calls_.find(ticket);
    calls.push_back(std::move(it->second));
    calls_.erase(it);
  }
  queue_rows_.Set(static_cast<double>(batcher_.queued_rows()));
  const size_t credit = batcher_.credit_rows();
  serving_ = true;
  lock.unlock();
  Serve(std::move(calls), credit);
  lock.lock();
  serving_ = false;
}

void ExpertEngine::Serve(std::vector<Call> calls, size_t credit_rows) {
  const base::Instant start = clock_.Now();
  const size_t hidden = slice_->hidden_size();
  std::vector<MergePart> parts;
  std::vector<std::vector<uint32_t>> dropped(calls.size());
  for (size_t i = 0; i < calls.size(); ++i) {
    MergePart& part = parts.emplace_back();
    part.batch = &calls[i].batch;
    const auto& counts = calls[i].frame.header.lane_row_counts();
    for (int lane = 0; lane < counts.size(); ++lane) {
      const bool alive = calls[i].alive(static_cast<size_t>(lane), start);
      dropped[i].push_back(alive ? 0 : 1);
      part.keep.insert(part.keep.end(), counts[lane], alive ? 1 : 0);
    }
  }
  const bool whole = std::none_of(dropped.front().begin(), dropped.front().end(),
                                  [](uint32_t flag) { return flag != 0; });
  if (calls.size() == 1 && whole) {  // nothing to join: computed where it lies
    const base::ExpertBatch& batch = calls.front().batch;
    Buffer out = buffers_->Acquire(batch.partials.size() * hidden * sizeof(float));
    const base::Micros compute = Compute(batch, out, start);
    Answer(calls.front(), dropped.front(), std::move(out), {start, compute, credit_rows});
    return;
  }
  const MergedBatch merged(parts, hidden);
  const base::ExpertBatch& batch = merged.batch();
  Buffer sums = buffers_->Acquire(batch.partials.size() * hidden * sizeof(float));
  const base::Micros compute = Compute(batch, sums, start);
  const std::span<const float> sum_span{reinterpret_cast<const float*>(sums.data()),
                                        batch.partials.size() * hidden};
  for (size_t i = 0; i < calls.size(); ++i) {
    const size_t partials = calls[i].batch.partials.size();
    Buffer out = buffers_->Acquire(partials * hidden * sizeof(float));
    merged.Split(i, sum_span, {reinterpret_cast<float*>(out.data()), partials * hidden});
    Answer(calls[i], dropped[i], std::move(out), {start, compute, credit_rows});
  }
}

// sums [partials, hidden]. Returns how long it took since `start`.
base::Micros ExpertEngine::Compute(const base::ExpertBatch& batch, Buffer& sums,
                                   base::Instant start) {
  const size_t values = batch.partials.size() * slice_->hidden_size();
  if (batch.row_count > 0) {
    slice_->Compute(batch, pool_, {reinterpret_cast<float*>(sums.data()), values});
  }
  const base::Micros compute = clock_.Now() - start;
  Count(batch);
  compute_seconds_.Observe(static_cast<double>(compute.count()) * 1e-6);
  return compute;
}

void ExpertEngine::Answer(const Call& call, const std::vector<uint32_t>& dropped, Buffer sums,
                          const Served& served) {
  transport::CombineHeader header;
  header.set_call_id(call.frame.header.call_id());
  header.set_partial_count(static_cast<uint32_t>(call.batch.partials.size()));
  header.set_hidden_size(slice_->hidden_size());
  header.set_queue_us(static_cast<uint32_t>((served.start - call.arrival).count()));
  header.set_compute_us(static_cast<uint32_t>(served.compute.count()));
  header.set_credit_rows(static_cast<uint32_t>(served.credit_rows));
  for (uint32_t flag : dropped) header.add_lane_dropped(flag);
  call.reply(transport::BuildCombine(std::move(header), std::move(sums)));
}

void ExpertEngine::Count(const base::ExpertBatch& batch) {
  rows_total_ += batch.row_count;
  rows_counter_.Add(static_cast<double>(batch.row_count));
  expert_rows_counter_.Add(static_cast<double>(batch.expert_ids.size()));
  batch_rows_.Observe(static_cast<double>(batch.row_count));
  std::lock_guard lock(mutex_);
  std::vector<uint64_t>& rows = load_[batch.layer];
  rows.resize(slice_->expert_count());
  for (uint16_t expert : batch.expert_ids) ++rows[expert];
}

absl::Status ExpertEngine::SelfTest() {
  const size_t hidden = slice_->hidden_size();
  uint32_t layer = 0;
  while (!slice_->HasRoutedExperts(layer)) ++layer;
  std::vector<uint16_t> experts;
  for (uint32_t e = 0; e < slice_->expert_count(); ++e) {
    if (slice_->Hosts(e)) experts.push_back(static_cast<uint16_t>(e));
  }
  // One row that goes to every hosted expert, through the same path as a frame.
  std::vector<float> row(hidden);
  for (size_t i = 0; i < hidden; ++i) row[i] = static_cast<float>(i % 7) * 0.25f - 0.75f;
  const std::vector<float> weights(experts.size(), 1.0f);
  const std::vector<uint32_t> offsets = {0, static_cast<uint32_t>(experts.size())};
  const std::vector<uint32_t> index = {0};
  std::vector<base::PartialNode> nodes;
  base::FoldRow(0, experts, std::vector<uint16_t>(experts.size(), 0), 0, slice_->expert_count(),
                nodes);
  transport::DispatchHeader header;
  header.set_layer(layer);
  header.add_lane_row_counts(1);
  header.add_lane_budgets_us(1);
  const DispatchFrame frame =
      transport::BuildDispatch(std::move(header), row, hidden, index, slice_->profile().wire,
                               offsets, experts, weights, nodes, *buffers_);
  EM_ASSIGN_OR_RETURN(const base::ExpertBatch batch, transport::CheckDispatch(frame));
  std::vector<float> sums(nodes.size() * hidden);
  slice_->Compute(batch, pool_, sums);
  if (!std::all_of(sums.begin(), sums.end(), [](float v) { return std::isfinite(v); })) {
    return Error(Reason::kNonFinite, "self-test: an expert of this slice gives a non-finite sum");
  }
  return absl::OkStatus();
}

expert::v1::DescribeResponse ExpertEngine::Describe(bool load) const {
  expert::v1::DescribeResponse description;
  description.mutable_model()->set_model(options_.model);
  description.mutable_model()->set_revision(slice_->revision());
  description.set_profile(slice_->profile().name);
  description.set_fingerprint(slice_->fingerprint());
  for (uint32_t e = 0; e < slice_->expert_count(); ++e) {
    if (!slice_->Hosts(e)) continue;
    const int last = description.experts_size() - 1;
    if (last >= 0 && description.experts(last).end() == e) {
      description.mutable_experts(last)->set_end(e + 1);
    } else {
      auto* range = description.add_experts();
      range->set_begin(e);
      range->set_end(e + 1);
    }
  }
  description.set_expert_bytes(slice_->weight_bytes());
  description.set_rows_total(rows_total_);
  std::lock_guard lock(mutex_);
  if (epochs_.newest()) {
    description.mutable_epoch()->set_term(epochs_.newest()->term);
    description.mutable_epoch()->set_number(epochs_.newest()->number);
    description.mutable_epoch()->set_content_hash(epochs_.newest()->content_hash);
  }
  for (const auto& [layer, rows] : load_) {
    if (!load) break;
    expert::v1::LayerLoad& entry = *description.add_load();
    entry.set_layer(layer);
    for (uint32_t e = 0; e < slice_->expert_count(); ++e) {
      if (slice_->Hosts(e)) entry.add_expert_rows(rows[e]);
    }
  }
  return description;
}

std::string ExpertEngine::StatusJson() const {
  const expert::v1::DescribeResponse d = Describe();
  std::lock_guard lock(mutex_);
  size_t experts = 0;
  for (const auto& range : d.experts()) experts += range.end() - range.begin();
  size_t layers = 0;
  for (uint32_t layer = 0; layer < kLayersMax; ++layer) layers += slice_->HasRoutedExperts(layer);
  size_t used = 0;
  for (const auto& [layer, rows] : load_) {
    used += rows.size() - static_cast<size_t>(std::count(rows.begin(), rows.end(), uint64_t{0}));
  }
  return absl::StrCat(
      "{\"hosted\":", experts * layers, ",\"used\":", used, ",\"experts_per_layer\":", experts,
      ",\"of\":", slice_->expert_count(), ",\"rows_total\":", d.rows_total(),
      ",\"expert_bytes\":", d.expert_bytes(), ",\"queued_rows\":", batcher_.queued_rows(),
      ",\"epoch\":\"", d.epoch().term(), ".", d.epoch().number(), "\",\"profile\":\"", d.profile(),
      "\",\"fingerprint\":\"", d.fingerprint(), "\",\"revision\":\"", d.model().revision(), "\"}");
}

}  // namespace expertmesh::expert_worker
