// Many questions at once from a few threads, and how far they are.
#pragma once

#include <cstddef>
#include <functional>
#include <iosfwd>
#include <mutex>
#include <string>

#include "absl/status/status.h"

namespace expertmesh::cli {

inline constexpr unsigned kConcurrencyMax = 256;

/// Says on `err` after each tenth how much is done. Any thread.
class Tally {
 public:
  Tally(std::ostream& err, std::string what, size_t total)
      : err_(err), what_(std::move(what)), total_(total) {}
  void Done();

 private:
  std::ostream& err_;
  const std::string what_;
  const size_t total_;
  std::mutex mutex_;
  size_t done_ = 0;    // guarded by mutex_
  size_t tenths_ = 0;  // guarded by mutex_
};

/// Runs work(worker, item) for every item of [0, count) on up to `threads` threads, workers
/// numbered from 0. The first error ends it: no more items begin, and the error is returned. A stop
/// signal (StopFlag) is kCancelled.
absl::Status ForEachAtOnce(size_t count, unsigned threads,
                           const std::function<absl::Status(unsigned worker, size_t item)>& work);

}  // namespace expertmesh::cli
