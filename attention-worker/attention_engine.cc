#include "attention-worker/attention_engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <utility>

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "services/base/hash.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::LaneId;
using base::Reason;
namespace metric = telemetry::metric;

namespace {

double Seconds(base::Micros duration) { return static_cast<double>(duration.count()) * 1e-6; }

}  // namespace

AttentionEngine::AttentionEngine(const model::AttentionModel& model, ExpertDispatcher& experts,
                                 Options options, const base::Clock& clock,
                                 telemetry::Metrics& metrics)
    : model_(model),
      experts_(experts),
      options_(std::move(options)),
      clock_(clock),
      pages_(model.lane_state(), options_.scheduler.pages_total),
      pool_(options_.threads),
      parts_(options_.micro_batches),
      scheduler_(options_.scheduler),
      running_gauge_(metrics.GetGauge(metric::kAttentionRunningRequests)),
      queued_gauge_(metrics.GetGauge(metric::kAttentionQueuedRequests)),
      kv_ratio_(metrics.GetGauge(metric::kAttentionKvCacheUsage)),
      kv_pages_used_(metrics.GetGauge(metric::kAttentionKvPagesUsed)),
      prefix_pages_(metrics.GetGauge(metric::kAttentionPrefixCachePages)),
      micro_batches_(metrics.GetGauge(metric::kAttentionMicroBatches)),
      generated_tokens_(metrics.GetCounter(metric::kAttentionGeneratedTokens)),
      prompt_tokens_(metrics.GetCounter(metric::kAttentionPromptTokens)),
      prefix_hit_tokens_(metrics.GetCounter(metric::kAttentionPrefixCacheHitTokens)),
      prefix_evictions_(metrics.GetCounter(metric::kAttentionPrefixCacheEvictions)),
      preemptions_(metrics.GetCounter(metric::kAttentionPreemptions)),
      batch_tokens_(metrics.GetHistogram(metric::kAttentionBatchTokens)),
      queue_wait_(metrics.GetHistogram(metric::kAttentionQueueWait)),
      decode_seconds_(metrics.GetHistogram(metric::kAttentionStepDuration, {{"phase", "decode"}})),
      prefill_seconds_(
          metrics.GetHistogram(metric::kAttentionStepDuration, {{"phase", "prefill"}})),
      constraint_seconds_(metrics.GetHistogram(metric::kAttentionConstraintDuration)),
      metrics_(metrics) {
  load_.pages_total = options_.scheduler.pages_total;
  thread_ = std::thread([this] { Run(); });
}

AttentionEngine::~AttentionEngine() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    for (auto& [id, running] : lanes_) running->cancelled = true;
  }
  wake_.notify_all();
  experts_.NoteCancelled();
  thread_.join();
  for (auto& [id, running] : lanes_) {
    if (running->sink) running->sink->OnEnd(Error(Reason::kDraining, "the worker is stopping"));
  }
}

absl::StatusOr<LaneId> AttentionEngine::Submit(LaneRequest request,
                                               std::shared_ptr<LaneSink> sink) {
  std::lock_guard lock(mutex_);
  if (stop_) return Error(Reason::kDraining, "the worker is stopping");
  if (options_.memory != nullptr && request.memory == nullptr) {
    return Error(Reason::kInternal, "the lane has no version of the memory");
  }
  const auto running = MakeRunning(std::move(request), std::move(sink));
  const Lane& lane = running->lane;
  EM_RETURN_IF_ERROR(scheduler_.Admit(lane.id(), lane.tokens().size(), lane.length_max(),
                                      lane.request().deadline, lane.blocks()));
  prompt_tokens_.Add(static_cast<double>(lane.request().prompt.size()));
  lanes_.emplace(lane.id(), running);
  wake_.notify_all();
  return lane.id();
}

// Under mutex_.
std::shared_ptr<AttentionEngine::Running> AttentionEngine::MakeRunning(
    LaneRequest request, std::shared_ptr<LaneSink> sink) {
  auto running =
      std::make_shared<Running>(LaneId{next_lane_++}, std::move(request), std::move(sink), pages_);
  Lane& lane = running->lane;
  if (!options_.prefix_secret.empty() && lane.SharesState()) {
    PrefixSeed seed = options_.prefix_seed;
    seed.tenant = lane.request().tenant;
    seed.first_position = lane.request().first_position;
    if (lane.request().memory) seed.engram_version = lane.request().memory->version;
    lane.KeepBlocks(RootKey(options_.prefix_secret, seed), model::kPagePositions);
  }
  running->state.set_first_position(lane.request().first_position);
  running->arrival = clock_.Now();
  running->deadline = lane.request().deadline;
  return running;
}

void AttentionEngine::Cancel(LaneId lane) {
  std::lock_guard lock(mutex_);
  const auto it = lanes_.find(lane);
  if (it == lanes_.end()) return;
  it->second->cancelled = true;
  wake_.notify_all();
  experts_.NoteCancelled();
}

void AttentionEngine::Cancel(const std::string& name) {
  std::lock_guard lock(mutex_);
  for (auto& [id, running] : lanes_) {
    if (running->lane.request().name == name) running->cancelled = true;
  }
  wake_.notify_all();
  experts_.NoteCancelled();
}

AttentionEngine::Load AttentionEngine::load() const {
  std::lock_guard lock(mutex_);
  return load_;
}

bool AttentionEngine::idle() const {
  std::lock_guard lock(mutex_);
  return std::all_of(lanes_.begin(), lanes_.end(),
                     [](const auto& entry) { return entry.second->parked; });
}

std::shared_ptr<AttentionEngine::Running> AttentionEngine::Find(LaneId lane) const {
  std::lock_guard lock(mutex_);
  const auto it = lanes_.find(lane);
  return it == lanes_.end() ? nullptr : it->second;
}

void AttentionEngine::End(LaneId lane, const absl::StatusOr<LaneEnd>& end) {
  std::shared_ptr<Running> running;
  {
    std::lock_guard lock(mutex_);
    const auto it = lanes_.find(lane);
    if (it == lanes_.end()) return;
    running = std::move(it->second);
    lanes_.erase(it);
    scheduler_.Remove(lane);
  }
  running->state.Clear();  // before the sink, so that a caller who waits for the end finds room
  if (running->sink) running->sink->OnEnd(end);
  for (const auto& waiting : running->park_waiters) {
    waiting(Error(Reason::kLaneNotFound, "the lane ended before it could park"));
  }
}

void AttentionEngine::EndExpired() {
  std::vector<LaneId> expired;
  std::vector<LaneId> cancelled;
  {
    std::lock_guard lock(mutex_);
    expired = scheduler_.Expired(clock_.Now());
    for (auto& [id, running] : lanes_) {
      if (running->cancelled) cancelled.push_back(id);
    }
  }
  for (LaneId lane : cancelled) End(lane, Error(Reason::kCancelled, "the caller went away"));
  for (LaneId lane : expired) {
    End(lane, Error(Reason::kDeadlineExceeded, "the request's time ran out"));
  }
}

void AttentionEngine::PublishLoad() {
  std::lock_guard lock(mutex_);
  load_.running = scheduler_.running();
  load_.waiting = scheduler_.waiting();
  load_.pages_used = load_.pages_total - scheduler_.pages_free();
  running_gauge_.Set(static_cast<double>(load_.running));
  queued_gauge_.Set(static_cast<double>(load_.waiting));
  kv_pages_used_.Set(static_cast<double>(load_.pages_used));
  prefix_pages_.Set(static_cast<double>(scheduler_.cache().blocks()));
  kv_ratio_.Set(static_cast<double>(load_.pages_used) /
                static_cast<double>(std::max<size_t>(1, load_.pages_total)));
}

void AttentionEngine::Run() {
  for (;;) {
    RunTasks();
    EndExpired();
    PublishLoad();
    StepPlan plan;
    {
      std::unique_lock lock(mutex_);
      if (stop_) return;
      plan = scheduler_.Plan();
      GivePagesLocked(plan);
      if (plan.items.empty()) {
        const auto any_cancelled = [&] {
          return std::any_of(lanes_.begin(), lanes_.end(),
                             [](const auto& entry) { return entry.second->cancelled.load(); });
        };
        const size_t known = lanes_.size();
        const auto woken = [&] {
          return stop_ || !tasks_.empty() || lanes_.size() != known || any_cancelled();
        };
        const base::Instant deadline = scheduler_.next_deadline();
        if (deadline == base::kNever) {
          wake_.wait(lock, woken);
        } else {
          wake_.wait_for(lock, std::max(base::Micros(0), deadline - clock_.Now()), woken);
        }
        continue;
      }
    }
    Announce(plan);
    Step(plan);
  }
}

void AttentionEngine::GivePagesLocked(const StepPlan& plan) {
  for (LaneId lane : plan.preempted) lanes_.at(lane)->state.Clear();
  preemptions_.Add(static_cast<double>(plan.preempted.size()));
  for (const StepStart& start : plan.started) lanes_.at(start.lane)->state.Adopt(start.pages);
}

void AttentionEngine::Announce(const StepPlan& plan) {
  for (const StepStart& start : plan.started) {
    const auto running = Find(start.lane);
    if (!running || running->started) continue;  // it starts over: the caller has heard
    running->started = true;
    queue_wait_.Observe(Seconds(clock_.Now() - running->arrival));
    prefix_hit_tokens_.Add(static_cast<double>(start.cached_tokens));
    running->sink->OnStart(start.cached_tokens);
  }
}

// The scheduler counted these pages: what is not free is in the prefix cache and no lane's.
void AttentionEngine::ReservePages(Running& running, size_t positions) {
  while (!running.state.Reserve(positions)) {
    std::lock_guard lock(mutex_);
    const auto page = scheduler_.EvictPage();
    if (!page) {
      spdlog::critical("no page for token {} of lane {}: {} of {} used", positions,
                       running.lane.id().value, pages_.used(), pages_.page_count());
      std::abort();
    }
    pages_.Release(*page);
    prefix_evictions_.Add();
  }
}

// Full blocks go to the prefix cache, which owns their pages too.
void AttentionEngine::Computed(Running& running, const StepItem& item) {
  std::lock_guard lock(mutex_);
  const CacheUpdate update = scheduler_.Computed(item, running.state.pages());
  for (uint32_t page : update.kept) pages_.AddOwner(page);
  for (const PageSwap& swap : update.swaps) running.state.Replace(swap.place, swap.page);
}

void AttentionEngine::Step(const StepPlan& plan) {
  const base::Instant start = clock_.Now();
  std::vector<std::shared_ptr<Running>> owners;  // keeps lanes alive through the step
  std::vector<StepLane> lanes;
  std::vector<MemoryLane> memory_lanes;
  std::vector<model::StepRow> rows;
  bool decode_only = true;
  for (const StepItem& item : plan.items) {
    std::shared_ptr<Running> running = Find(item.lane);
    decode_only = decode_only && item.count == 1;
    ReservePages(*running, item.begin + item.count);
    lanes.push_back({item.count, running->deadline, &running->cancelled});
    memory_lanes.push_back({item.count, running->lane.request().memory});
    for (size_t i = item.begin; i < item.begin + item.count; ++i) {
      model::StepRow row;
      row.lane = &running->state;
      row.token = running->lane.tokens()[i];
      row.position = running->lane.PositionOf(i);
      row.wants_logits = item.wants_logits && i + 1 == item.begin + item.count;
      row.forced_experts = running->lane.ForcedExperts(i);
      row.previous = std::span(running->lane.tokens()).first(i);
      rows.push_back(row);
    }
    owners.push_back(std::move(running));
  }
  batch_tokens_.Observe(static_cast<double>(rows.size()));
  experts_.BeginStep(std::move(lanes), decode_only);
  if (options_.memory != nullptr) options_.memory->BeginStep(std::move(memory_lanes));
  const size_t parts = parts_.Choose(rows.size(), decode_only);
  micro_batches_.Set(static_cast<double>(parts));
  const base::Instant begin = clock_.Now();
  const model::StepResult result =
      model_.RunStep(rows, experts_, pool_, {nullptr, options_.memory, parts});
  const base::Instant end = clock_.Now();
  parts_.Took(rows.size(), decode_only, {end - begin, experts_.waited()});
  (decode_only ? decode_seconds_ : prefill_seconds_).Observe(Seconds(end - start));
  AfterStep(plan, result.alive, result.logits);
}

void AttentionEngine::AfterStep(const StepPlan& plan, const std::vector<uint8_t>& alive,
                                std::span<const float> logits) {
  const size_t vocab = model_.config().vocab_size;
  size_t row = 0;
  for (const StepItem& item : plan.items) {
    const size_t first = row;
    row += item.count;
    const std::span<const float> lane_logits =
        item.wants_logits ? logits.first(vocab) : std::span<const float>();
    if (item.wants_logits) logits = logits.subspan(vocab);
    absl::Status failure = absl::OkStatus();
    for (size_t r = first; r < row && failure.ok(); ++r) {
      if (alive[r] == 0) failure = FailureOf(r);
    }
    if (!failure.ok()) {
      CountDropped(item.count, base::ReasonOf(failure));
      End(item.lane, failure);
      continue;
    }
    const auto running = Find(item.lane);
    if (!running) continue;
    Computed(*running, item);
    if (item.wants_logits) TakeToken(*running, lane_logits);
  }
}

absl::Status AttentionEngine::FailureOf(size_t row) const {
  if (options_.memory != nullptr && !options_.memory->failure(row).ok()) {
    return options_.memory->failure(row);
  }
  if (!experts_.failure(row).ok()) return experts_.failure(row);
  return Error(Reason::kNonFinite, "the model computed a NaN");
}

void AttentionEngine::CountDropped(size_t tokens, Reason reason) {
  if (reason == Reason::kCancelled || reason == Reason::kDeadlineExceeded) return;
  metrics_
      .GetCounter(metric::kAttentionDroppedTokens,
                  {{"reason", std::string(base::ReasonName(reason))}})
      .Add(static_cast<double>(tokens));
}

// Tokens that the lane's grammar forbids now, and those that are never chosen.
std::vector<bool> AttentionEngine::MaskOf(Lane& lane, size_t vocab) {
  const base::Instant start = clock_.Now();
  const model::TokenSet allowed = lane.matcher()->Allowed(lane.length_max() - lane.tokens().size());
  std::vector<bool> masked(vocab);
  for (uint32_t id = 0; id < vocab; ++id) masked[id] = !allowed.Has(id);
  for (const uint32_t id : options_.end_tokens) {
    if (id < vocab) masked[id] = !lane.matcher()->complete();
  }
  for (size_t id = 0; id < options_.masked_tokens.size(); ++id) {
    if (options_.masked_tokens[id]) masked[id] = true;
  }
  constraint_seconds_.Observe(Seconds(clock_.Now() - start));
  return masked;
}

// The next token; its logprob is that of the logits as the model gave them. `masked`: never chosen.
model::SampledToken AttentionEngine::Choose(const Lane& lane, std::span<const float> logits,
                                            float uniform, const std::vector<bool>& masked) const {
  const model::SamplingParams& params = lane.request().sampling;
  if (!params.adjusts()) return model::Sample(logits, params, uniform, masked);
  std::vector<float> adjusted(logits.begin(), logits.end());
  const std::span<const uint32_t> tokens(lane.tokens());
  const size_t prompt = lane.request().prompt.size();
  model::AdjustLogits(adjusted, params, tokens.first(prompt), tokens.subspan(prompt));
  model::SampledToken sampled = model::Sample(adjusted, params, uniform, masked);
  if (sampled.id != UINT32_MAX) sampled.logprob = model::LogprobOf(logits, sampled.id);
  return sampled;
}

void AttentionEngine::TakeToken(Running& running, std::span<const float> logits) {
  Lane& lane = running.lane;
  const LaneRequest& request = lane.request();
  LaneToken token;
  token.position = lane.PositionOf(lane.tokens().size());
  const float u = model::UniformOf(request.seed, request.choice, token.position);
  const std::optional<uint32_t> forced = lane.ForcedNext();
  const bool constrains = lane.matcher() != nullptr && !forced;
  std::vector<bool> constrained;
  if (constrains) {
    constrained = MaskOf(lane, logits.size());
    if (std::find(constrained.begin(), constrained.end(), false) == constrained.end()) {
      End(lane.id(), Error(Reason::kSchemaUnsupported,
                           "no token of the vocabulary goes on with the constrained answer"));
      return;
    }
  }
  const model::SampledToken sampled =
      forced ? model::SampledToken{*forced, model::LogprobOf(logits, *forced)}
             : Choose(lane, logits, u, constrains ? constrained : options_.masked_tokens);
  if (sampled.id == UINT32_MAX || std::isnan(sampled.logprob)) {
    End(lane.id(), Error(Reason::kNonFinite, "the logits hold a NaN"));
    return;
  }
  token.id = sampled.id;
  token.logprob = sampled.logprob;
  if (request.top_logprobs > 0) {
    token.top_logprobs = model::LikeliestTokens(logits, request.top_logprobs);
  }
  if (request.return_logits_hash) token.logits_hash = base::Hash64(std::as_bytes(logits));
  if (request.return_logits) token.logits.assign(logits.begin(), logits.end());
  generated_tokens_.Add();
  const auto finish = lane.Append(token.id, options_.end_tokens);
  if (lane.off_grammar()) {
    End(lane.id(),
        Error(Reason::kInvalidArgument, absl::StrCat("token ", token.id,
                                                     " or one before it was given, and the "
                                                     "constraint does not allow it there")));
    return;
  }
  running.sink->OnToken(token);
  if (finish == FinishReason::kParked || (!finish && !running.park_waiters.empty())) {
    Park(running);
    return;
  }
  if (!finish) {
    std::lock_guard lock(mutex_);
    scheduler_.Grew(lane.id());
    return;
  }
  LaneEnd end{*finish, request.prompt.size(), lane.generated(), {}};
  if (request.return_state_hash) {
    // The last token is not in the state: nothing was computed from it.
    for (size_t i = 0; i + 1 < lane.tokens().size(); ++i) {
      end.state_hashes.push_back(running.state.HashOf(i));
    }
  }
  End(lane.id(), end);
}

}  // namespace expertmesh::attention_worker
