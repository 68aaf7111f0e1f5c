// Frames in, sums out: checks a frame against the slice, queues it, computes batches one at a time
// and replies. A thread that brings a small call to an idle engine computes it itself, so that no
// other has to be woken; the rest is the engine thread's. Drives core/ with the clock.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "expert-worker/core/batcher.h"
#include "expert-worker/core/epoch_guard.h"
#include "model/expert_slice.h"
#include "services/base/clock.h"
#include "services/telemetry/metrics.h"
#include "services/transport/transport.h"

namespace expertmesh::expert_worker {

class ExpertEngine {
 public:
  struct Options {
    base::ComputeThreads threads = {};
    Batcher::Limits limits;
    std::string model;  // served name
  };
  /// `clock` and `metrics` outlive the engine.
  ExpertEngine(std::unique_ptr<model::ExpertSlice> slice, Options options, const base::Clock& clock,
               telemetry::Metrics& metrics);
  ~ExpertEngine();

  /// transport::FrameHandler; any thread. A bad frame is answered with its reason at once. A thread
  /// that has brought what there was calls ServeQueued, which may compute before it returns.
  void Queue(absl::StatusOr<transport::DispatchFrame> frame, transport::Reply reply);
  void ServeQueued();
  /// The router announced an epoch; any thread.
  void Learn(const EpochId& epoch);

  /// Runs a fixed batch through every hosted expert's kernels once; non-finite output is an error.
  absl::Status SelfTest();

  const model::ExpertSlice& slice() const { return *slice_; }
  /// `load`: also how often each expert was used, by layer.
  expert::v1::DescribeResponse Describe(bool load = false) const;
  /// JSON object for /statusz: hosted and used experts, rows, epoch.
  std::string StatusJson() const;

 private:
  struct Call {
    transport::DispatchFrame frame;
    base::ExpertBatch batch;  // points into frame.payload
    transport::Reply reply;
    base::Instant arrival;
    bool alive(size_t lane, base::Instant now) const;
  };

  struct Served {
    base::Instant start;
    base::Micros compute;
    size_t credit_rows = 0;
  };

  absl::StatusOr<base::ExpertBatch> Check(const transport::DispatchFrame& frame) const;
  absl::Status CheckHosted(const base::ExpertBatch& batch) const;
  void Refuse(uint64_t call_id, const absl::Status& status, const transport::Reply& reply);
  void Run();
  void ServeNextLocked(std::unique_lock<std::mutex>& lock);
  void Serve(std::vector<Call> calls, size_t credit_rows);
  base::Micros Compute(const base::ExpertBatch& batch, transport::Buffer& sums,
                       base::Instant start);
  void Answer(const Call& call, const std::vector<uint32_t>& dropped, transport::Buffer sums,
              const Served& served);
  void Count(const base::ExpertBatch& batch);

  const std::unique_ptr<model::ExpertSlice> slice_;
  const Options options_;
  const base::Clock& clock_;
  telemetry::Metrics& metrics_;
  const std::shared_ptr<transport::BufferPool> buffers_;
  base::ThreadPool pool_;  // used by the thread that serves only

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;                         // guarded by mutex_
  bool serving_ = false;                      // guarded by mutex_; a thread computes
  Batcher batcher_;                           // guarded by mutex_
  EpochGuard epochs_;                         // guarded by mutex_
  uint64_t next_ticket_ = 1;                  // guarded by mutex_
  std::unordered_map<uint64_t, Call> calls_;  // guarded by mutex_; by ticket
  /// Rows by layer and global expert id, of layers that were used. Guarded by mutex_.
  std::map<uint32_t, std::vector<uint64_t>> load_;

  std::atomic<uint64_t> rows_total_{0};
  telemetry::Counter rows_counter_;
  telemetry::Counter expert_rows_counter_;
  telemetry::Histogram batch_rows_;
  telemetry::Histogram compute_seconds_;
  telemetry::Gauge queue_rows_;
  std::thread thread_;
};

}  // namespace expertmesh::expert_worker
