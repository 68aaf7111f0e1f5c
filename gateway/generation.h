// One Generate call to an attention worker: events queue here, bounded; a full queue stops reading.
#pragma once

#include <grpcpp/channel.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "services/rpc/identity.h"

namespace expertmesh::gateway {

/// Thread-safe. Cancelled when the last owner lets go.
class Generation {
 public:
  /// `wake` is called on a gRPC thread whenever Take would return something.
  using Wake = std::function<void()>;
  Generation(std::shared_ptr<grpc::Channel> channel, inference::v1::GenerateRequest request,
             const rpc::Identity& identity, std::chrono::microseconds budget, Wake wake);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  struct Batch {
    std::vector<inference::v1::GenerateResponse> events;
    bool ended = false;   // after these events nothing comes
    absl::Status status;  // how it ended
    bool empty() const { return events.empty() && !ended; }
  };
  /// What has come since the last call; never blocks.
  Batch Take();
  void Cancel();

 private:
  class Call;
  std::shared_ptr<Call> call_;
};

}  // namespace expertmesh::gateway
