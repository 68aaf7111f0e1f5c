// One Generate call to an attention worker. Its events queue here, bounded; a full queue stops
// reading, and gRPC's flow control then stops the worker's stream.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "gateway/worker_calls.h"
#include "services/rpc/identity.h"

namespace expertmesh::gateway {

/// Thread-safe. The destructor cancels the call.
class Generation {
 public:
  static constexpr size_t kQueueEventsMax = 256;
  static constexpr size_t kQueueBytesMax = size_t{4} << 20;

  /// Called on gRPC threads when Take has something new, without any lock held; one such call may
  /// still come after the destructor. What it captures must allow that.
  using Wake = std::function<void()>;

  /// `calls` are those of the worker behind `channel`; when it is lost, the call ends with that.
  Generation(const std::shared_ptr<grpc::Channel>& channel, std::shared_ptr<WorkerCalls> calls,
             inference::v1::GenerateRequest request, const rpc::Identity& identity,
             std::chrono::microseconds budget, Wake wake);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  struct Batch {
    std::vector<inference::v1::GenerateResponse> events;
    bool ended = false;  // nothing comes after these events
    absl::Status
        status;  // how it ended; OK only behind a Finished event; kPeerLost names the worker
    bool empty() const { return events.empty() && !ended; }
  };
  /// What has come since the last call; never blocks.
  Batch Take();
  /// Ends the call soon with kCancelled; events that wait are dropped.
  void Cancel();

 private:
  class Call;
  std::shared_ptr<Call> call_;
};

}  // namespace expertmesh::gateway
