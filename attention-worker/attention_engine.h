// The step loop: takes requests, packs steps, runs the model, samples, hands tokens out. One engine
// thread owns scheduler, lanes and lane state; everything else talks to it through a mailbox.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "attention-worker/core/lane.h"
#include "attention-worker/core/scheduler.h"
#include "attention-worker/expert_dispatcher.h"
#include "model/lane_state.h"
#include "model/runtime.h"
#include "services/base/status.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::attention_worker {

/// One generated token, and what the debug door asked to see of it.
struct LaneToken {
  uint32_t id = 0;
  uint64_t position = 0;
  float logprob = 0;
  uint64_t logits_hash = 0;
  std::vector<float> logits;
};

/// How a lane ended well.
struct LaneEnd {
  FinishReason reason = FinishReason::kStop;
  size_t generated = 0;
  std::vector<uint64_t> state_hashes;
};

/// Receives the events of one lane on the engine thread; OnEnd comes last, exactly once.
class LaneSink {
 public:
  virtual ~LaneSink() = default;
  virtual void OnToken(const LaneToken& token) = 0;
  virtual void OnEnd(const absl::StatusOr<LaneEnd>& end) = 0;
};

class AttentionEngine {
 public:
  struct Options {
    int threads = 1;
    SchedulerOptions scheduler;       // pages_total is set from kv_pages
    std::vector<bool> masked_tokens;  // never sampled; empty = none
    std::vector<uint32_t> end_tokens;
  };
  /// All references outlive the engine; the dispatcher's Begin/Finish run on the engine thread.
  AttentionEngine(const model::AttentionModel& model, ExpertDispatcher& experts, Options options,
                  const base::Clock& clock, telemetry::Metrics& metrics);
  ~AttentionEngine();

  /// Any thread. On an error nothing was queued and the sink is not called. `request` was checked.
  absl::StatusOr<base::LaneId> Submit(LaneRequest request, std::shared_ptr<LaneSink> sink);
  /// Any thread; the lane ends with kCancelled, at the latest after the layer it is in.
  void Cancel(base::LaneId lane);

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
    std::shared_ptr<LaneSink> sink;
    model::LaneState state;
    std::atomic<bool> cancelled{false};
    base::Instant arrival;
    bool started = false;
  };

  void Run();
  void Step(const StepPlan& plan);
  void AfterStep(const StepPlan& plan, const std::vector<uint8_t>& alive,
                 std::span<const float> logits);
  void CountDropped(size_t tokens, base::Reason reason);
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

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;                                                 // guarded by mutex_
  uint64_t next_lane_ = 1;                                            // guarded by mutex_
  Scheduler scheduler_;                                               // guarded by mutex_
  std::unordered_map<base::LaneId, std::shared_ptr<Running>> lanes_;  // guarded by mutex_
  Load load_;                                                         // guarded by mutex_

  telemetry::Gauge running_gauge_, queued_gauge_, kv_ratio_, kv_pages_used_;
  telemetry::Counter generated_tokens_, prompt_tokens_;
  telemetry::Histogram batch_tokens_, queue_wait_, decode_seconds_, prefill_seconds_;
  telemetry::Metrics& metrics_;
  std::thread thread_;
};

}  // namespace expertmesh::attention_worker
