#include "cli/eval/work.h"

#include <algorithm>
#include <atomic>
#include <ostream>
#include <thread>
#include <vector>

#include "cli/stop_flag.h"
#include "services/base/status.h"

namespace expertmesh::cli {

void Tally::Done() {
  std::lock_guard lock(mutex_);
  ++done_;
  const size_t tenths = done_ * 10 / total_;
  if (tenths == tenths_) return;
  tenths_ = tenths;
  err_ << "expertmesh: " << what_ << ": " << done_ << " of " << total_ << "\n" << std::flush;
}

absl::Status ForEachAtOnce(size_t count, unsigned threads,
                           const std::function<absl::Status(unsigned worker, size_t item)>& work) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  absl::Status first;  // guarded by mutex
  const auto run = [&](unsigned worker) {
    for (;;) {
      const size_t item = next.fetch_add(1);
      if (item >= count) return;
      absl::Status status = StopFlag::IsSet()
                                ? base::Error(base::Reason::kCancelled, "stopped by a signal")
                                : work(worker, item);
      if (status.ok()) continue;
      next = count;
      std::lock_guard lock(mutex);
      if (first.ok()) first = std::move(status);
      return;
    }
  };
  std::vector<std::jthread> workers;
  const size_t wanted = std::min<size_t>(std::max(threads, 1u), count);
  for (unsigned i = 0; i < wanted; ++i) workers.emplace_back(run, i);
  workers.clear();  // joins
  return first;
}

}  // namespace expertmesh::cli
