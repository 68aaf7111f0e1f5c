// The step loop: takes requests, packs steps, runs the model, samples, hands tokens out. One engine
// thread owns scheduler, lanes and lane state; everything else talks to it through a mailbox.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "attention-worker/core/lane.h"
#include "attention-worker/core/micro_batches.h"
#include "attention-worker/core/scheduler.h"
#include "attention-worker/engram_client.h"
#include "attention-worker/expert_dispatcher.h"
#include "model/lane_state.h"
#include "model/runtime.h"
#include "model/sampler.h"
#include "services/base/status.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::attention_worker {

/// One generated token, and what the debug door asked to see of it.
struct LaneToken {
  uint32_t id = 0;
  uint64_t position = 0;
  float logprob = 0;
  std::vector<model::TokenLogprob> top_logprobs;
  uint64_t logits_hash = 0;
  std::vector<float> logits;
};

/// How a lane ended well.
struct LaneEnd {
  FinishReason reason = FinishReason::kStop;
  size_t prompt_tokens = 0;
  size_t generated = 0;
  std::vector<uint64_t> state_hashes;
};

/// A parked lane as another worker needs it, but for its state, which comes page by page.
struct LaneSnapshot {
  std::string record;               // LaneRequest::record
  std::vector<uint32_t> generated;  // tokens
  size_t positions = 0;             // tokens whose state is in the pages
};

/// Receives the events of one lane on the engine thread; OnEnd comes last, exactly once (a parked
/// lane's, when it parks).
class LaneSink {
 public:
  virtual ~LaneSink() = default;
  /// The lane starts; the state of its first `cached_tokens` tokens was in the prefix cache. Once,
  /// before the first token.
  virtual void OnStart(size_t cached_tokens) = 0;
  virtual void OnToken(const LaneToken& token) = 0;
  virtual void OnEnd(const absl::StatusOr<LaneEnd>& end) = 0;
};

class AttentionEngine {
 public:
  struct Options {
    base::ComputeThreads threads = {};
    SchedulerOptions scheduler;       // pages_total is set from kv_pages
    size_t micro_batches = 0;         // of a step; 0: as measured
    std::vector<bool> masked_tokens;  // never sampled; empty = none
    std::vector<uint32_t> end_tokens;
    /// Where rows of the memory come from; then every request has a pin. Null: no memory, or its
    /// tables are in this process.
    EngramClient* memory = nullptr;
    std::string prefix_secret;  // of the prefix cache's keys; empty = no prefix cache
    PrefixSeed prefix_seed;     // tenant and first position come from the request
    base::Micros parked_lifetime = std::chrono::seconds(10);
  };
  /// All references outlive the engine, as does options.memory; their Begin and Finish run on the
  /// engine thread.
  AttentionEngine(const model::AttentionModel& model, ExpertDispatcher& experts, Options options,
                  const base::Clock& clock, telemetry::Metrics& metrics);
  ~AttentionEngine();

  /// Any thread. On an error nothing was queued and the sink is not called. `request` was checked.
  absl::StatusOr<base::LaneId> Submit(LaneRequest request, std::shared_ptr<LaneSink> sink);
  /// Any thread; the lane ends with kCancelled, at the latest after the layer it is in.
  void Cancel(base::LaneId lane);
  void Cancel(const std::string& name);

  // Parked lanes (docs/protocol.md §5). All of it from any thread; what takes a callback answers on
  // the engine thread, between two steps. A lane is found by its name and only for its tenant:
  // kLaneNotFound. A parked lane is forgotten after parked_lifetime.
  /// Goes on with a parked lane until `park_after` tokens are generated in all (0: to its end).
  void Resume(const std::string& name, const std::string& tenant, uint32_t park_after,
              base::Instant deadline, std::shared_ptr<LaneSink> sink);
  /// kLaneNotParked for a running lane, unless `park`: then it parks first.
  void Export(const std::string& name, const std::string& tenant, bool park,
              std::function<void(absl::StatusOr<LaneSnapshot>)> done);
  /// The state of page `page` of `snapshot_positions` positions (model::LaneState::CopyPage).
  /// kLaneNotFound also if the pages were given to others meanwhile.
  void ExportPage(const std::string& name, size_t page, size_t snapshot_positions,
                  std::function<void(absl::StatusOr<std::string>)> done);
  /// A new parked lane with room for the state of `positions` tokens, whose pages are to come in
  /// order; until the last is there it can only be dropped.
  void Import(LaneRequest request, size_t positions, std::function<void(absl::Status)> done);
  void ImportPage(const std::string& name, size_t page, size_t positions, std::string state,
                  std::function<void(absl::Status)> done);
  /// Forgets a parked lane.
  void Drop(const std::string& name);

  struct Load {
    size_t running = 0;
    size_t waiting = 0;
    size_t pages_used = 0;
    size_t pages_total = 0;
  };
  Load load() const;
  /// Lanes still in work, for the drain.
  bool idle() const;

 private:
  struct Running {
    Running(base::LaneId id, LaneRequest request, std::shared_ptr<LaneSink> s,
            model::PagePool& pages)
        : lane(id, std::move(request)), sink(std::move(s)), state(pages) {}
    Lane lane;
    std::shared_ptr<LaneSink> sink;  // null while parked
    model::LaneState state;
    std::atomic<bool> cancelled{false};
    base::Instant arrival;
    bool started = false;
    bool parked = false;
    base::Instant deadline = base::kNever;
    // Exports that wait for it to park.
    std::vector<std::function<void(absl::StatusOr<LaneSnapshot>)>> park_waiters;
    size_t pages_expected = 0;  // of an import that is under way
    size_t pages_arrived = 0;
  };
  using Task = std::function<void()>;

  void Post(Task task);
  void RunTasks();
  std::shared_ptr<Running> MakeRunning(LaneRequest request, std::shared_ptr<LaneSink> sink);
  std::shared_ptr<Running> FindParked(const std::string& name) const;
  absl::StatusOr<std::shared_ptr<Running>> FindOwned(const std::string& name,
                                                     const std::string& tenant) const;
  LaneSnapshot SnapshotOf(const Running& running) const;
  void Park(Running& running);
  void Run();
  void GivePagesLocked(const StepPlan& plan);
  void Announce(const StepPlan& plan);
  void ReservePages(Running& running, size_t positions);
  void Step(const StepPlan& plan);
  void Computed(Running& running, const StepItem& item);
  void AfterStep(const StepPlan& plan, const std::vector<uint8_t>& alive,
                 std::span<const float> logits);
  /// Why a row of the last step died.
  absl::Status FailureOf(size_t row) const;
  void CountDropped(size_t tokens, base::Reason reason);
  std::vector<bool> MaskOf(Lane& lane, size_t vocab);
  model::SampledToken Choose(const Lane& lane, std::span<const float> logits, float uniform,
                             const std::vector<bool>& masked) const;
  void TakeToken(Running& running, std::span<const float> logits);
  void End(base::LaneId lane, const absl::StatusOr<LaneEnd>& end);
  void EndExpired();
  void PublishLoad();
  std::shared_ptr<Running> Find(base::LaneId lane) const;

  const model::AttentionModel& model_;
  ExpertDispatcher& experts_;
  const Options options_;
  const base::Clock& clock_;
  model::PagePool pages_;  // engine thread
  base::ThreadPool pool_;  // engine thread
  MicroBatches parts_;     // engine thread

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;                                                 // guarded by mutex_
  uint64_t next_lane_ = 1;                                            // guarded by mutex_
  Scheduler scheduler_;                                               // guarded by mutex_
  std::unordered_map<base::LaneId, std::shared_ptr<Running>> lanes_;  // guarded by mutex_
  Load load_;                                                         // guarded by mutex_
  std::deque<Task> tasks_;                                            // guarded by mutex_

  telemetry::Gauge running_gauge_, queued_gauge_, kv_ratio_, kv_pages_used_, prefix_pages_,
      micro_batches_;
  telemetry::Counter generated_tokens_, prompt_tokens_, prefix_hit_tokens_, prefix_evictions_;
  telemetry::Counter preemptions_;
  telemetry::Histogram batch_tokens_, queue_wait_, decode_seconds_, prefill_seconds_,
      constraint_seconds_;
  telemetry::Metrics& metrics_;
  std::thread thread_;
};

}  // namespace expertmesh::attention_worker
