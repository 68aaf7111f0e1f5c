#include "gateway/worker_calls.h"

namespace expertmesh::gateway {

absl::Status WorkerCalls::Add(const void* call, End end) {
  std::lock_guard lock(mutex_);
  if (lost_.ok()) ends_[call] = std::move(end);
  return lost_;
}

void WorkerCalls::Remove(const void* call) {
  std::lock_guard lock(mutex_);
  ends_.erase(call);
}

void WorkerCalls::Lose(const absl::Status& why) {
  std::map<const void*, End> ends;
  {
    std::lock_guard lock(mutex_);
    lost_ = why;
    ends.swap(ends_);
  }
  for (const auto& [call, end] : ends) end(why);
}

}  // namespace expertmesh::gateway
