// Drives core/dispatch with a transport: the ExpertBackend of a mesh. One engine thread calls Begin
// and Finish; views, connections and answers come in from other threads through a bounded mailbox.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "attention-worker/core/dispatch.h"
#include "model/runtime.h"
#include "services/base/clock.h"
#include "services/telemetry/metrics.h"
#include "services/transport/transport.h"

namespace expertmesh::attention_worker {

/// The lane that some consecutive rows of a step belong to.
struct StepLane {
  size_t row_count = 0;
  base::Instant deadline = base::kNever;
  const std::atomic<bool>* cancelled = nullptr;  // not owned; null = never
};

class ExpertDispatcher final : public model::ExpertBackend {
 public:
  struct Options {
    std::string model;
    std::string revision;
    model::Profile profile;
    DispatchLimits limits;
    uint64_t first_turn = 0;  // another number in every worker; see DispatchMemory::turn
  };
  ExpertDispatcher(Options options, const base::Clock& clock, telemetry::Metrics& metrics);
  ~ExpertDispatcher() override;

  /// Must be called once before the first step. Not owned; it is destroyed before the dispatcher,
  /// or Detach is called first.
  void Attach(transport::Transport* transport) { transport_ = transport; }

  /// A new view; any thread. Peers are added and removed on the calling thread.
  void SetView(const PlacementView& view);
  /// transport::PeerListener; any thread.
  void SetPeerUp(const std::string& worker, bool up);
  PlacementView view() const;

  /// A lane's `cancelled` was set; any thread.
  void NoteCancelled();

  /// Names the lanes of the next RunStep, in row order. Engine thread.
  void BeginStep(std::vector<StepLane> lanes, bool decode_only);
  /// How long this step has waited for answers with nothing else to do.
  base::Micros waited() const { return waited_; }
  /// Why a row of this step failed; OK if it did not.
  const absl::Status& failure(size_t row) const { return failures_[row]; }

  void Begin(const model::MoeCall& call) override;
  void Finish(uint32_t micro_batch, std::span<float> out, std::span<uint8_t> alive) override;

 private:
  struct Event {
    uint64_t call_id = 0;
    absl::StatusOr<transport::CombineFrame> answer;
  };

  /// A layer of a micro-batch, from Begin to Finish.
  struct Open {
    model::MoeCall call;
    std::vector<uint8_t> alive;                    // [row_count]
    std::unique_ptr<LayerDispatch> dispatch;       // none: not open
    std::vector<transport::CombineFrame> answers;  // by part
    base::Instant start;
  };

  void TakeConnectionChanges();
  void NoteImbalance(const model::MoeCall& call);
  void Perform(Open& open, DispatchActions actions);
  void Send(const Open& open, const DispatchAction& action);
  void OnEvent(Event event);
  void FailRows(Open& open, const Part& part, const absl::Status& status);
  size_t LaneOf(const Open& open, size_t row) const {
    return lane_of_row_[open.call.first_row + row];
  }
  absl::Status& FailureOf(const Open& open, size_t row) {
    return failures_[open.call.first_row + row];
  }
  absl::Status EndOf(const StepLane& lane, base::Instant now) const;
  void DropUnwanted(Open& open);
  base::Instant NextWake() const;
  bool IsDue() const;
  void TakeEvents();
  void WaitForEvent();
  void DropExpired(Open& open, size_t part, const transport::CombineHeader& header);
  void Sum(const Open& open, std::span<float> out, std::span<uint8_t> alive);
  std::vector<size_t> LanesOf(const Open& open, const Part& part) const;

  const Options options_;
  const base::Clock& clock_;
  transport::Transport* transport_ = nullptr;
  const std::shared_ptr<transport::BufferPool> buffers_;

  mutable std::mutex mutex_;
  transport::Bell bell_;                  // rung for what follows
  PlacementView view_;                    // guarded by mutex_
  std::map<std::string, Replica> peers_;  // guarded by mutex_: what the transport was told
  std::vector<std::pair<std::string, bool>> connection_changes_;  // guarded by mutex_
  bool changed_ = false;                                          // guarded by mutex_
  std::vector<Event> mailbox_;  // guarded by mutex_; at most one per call in flight

  // Engine thread only.
  PlacementView step_view_;
  std::vector<StepLane> lanes_;
  std::vector<uint32_t> lane_of_row_;
  transport::Purpose purpose_ = transport::Purpose::kDecode;
  std::deque<Open> open_;               // by micro-batch
  std::vector<absl::Status> failures_;  // by row of the step
  DispatchMemory memory_;
  base::Micros waited_{0};

  telemetry::Counter dispatch_bytes_;
  telemetry::Counter retries_;
  telemetry::Counter extra_partials_;
  telemetry::Histogram layer_seconds_;
  telemetry::Gauge imbalance_;
  telemetry::Gauge epoch_;
};

}  // namespace expertmesh::attention_worker
