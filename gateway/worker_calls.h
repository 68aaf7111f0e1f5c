// The calls that run on one attention worker, so that all of them end when the mesh loses it: a
// process that stands still keeps its connections, and gRPC alone would notice after half a minute.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace expertmesh::gateway {

/// Thread-safe. One per start of a worker; shared by the mesh view and the calls.
class WorkerCalls {
 public:
  using End = std::function<void(const absl::Status& why)>;

  explicit WorkerCalls(std::string worker) : worker_(std::move(worker)) {}
  const std::string& worker() const { return worker_; }

  /// Not OK once the worker is lost: then `end` was not kept. Else `end` is called at most once, by
  /// Lose, without any lock held here. `call` only names the call.
  absl::Status Add(const void* call, End end);
  void Remove(const void* call);
  /// Ends every call with `why`, and those that are added later.
  void Lose(const absl::Status& why);

 private:
  const std::string worker_;
  std::mutex mutex_;
  absl::Status lost_;                // guarded by mutex_
  std::map<const void*, End> ends_;  // guarded by mutex_
};

}  // namespace expertmesh::gateway
