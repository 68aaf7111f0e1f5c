// A fixed set of threads for parallel loops over independent outputs. Which thread takes which
// index never changes a result: loops split over rows and outputs only (docs/architecture.md §4).
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"

namespace expertmesh::base {

/// Threads that compute. With `cpus`, thread i runs on cpus[i] alone: where several processes share
/// few cores, the kernel leaves a core idle that a waiting thread of another core could use.
struct ComputeThreads {
  int count = 1;
  std::vector<int> cpus = {};  // empty: where the kernel likes; else one per thread
  /// Threads beside the caller's do not push one off its core that computes already, of this
  /// process or another. Where several processes share cores, the threads that were called first
  /// work side by side, and helpers take over what is left.
  bool helpers_give_way = false;
};

/// The CPUs that the calling thread may use, ascending.
std::vector<int> AllowedCpus();

/// `count` threads, each on a CPU of its own if this process may use just so many; else unbound.
ComputeThreads OnePerCpu(int count);

/// kInvalidArgument unless there is one CPU per thread (or none) and this process may use them.
absl::Status CheckComputeThreads(const ComputeThreads& threads);

/// Owned by one caller at a time. A loop's body must not use the pool.
class ThreadPool {
 public:
  /// `threads` ≥ 1 counts the calling thread: ThreadPool(1) starts none.
  explicit ThreadPool(int threads) : ThreadPool(ComputeThreads{threads}) {}
  /// A thread that calls ParallelFor stays on the first of the CPUs from then on.
  explicit ThreadPool(const ComputeThreads& threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls body(begin, end, thread) over [0, count) in chunks of at least `grain`, of which there
  /// are about `chunks_per_thread`: more of them end closer together where one thread is held up,
  /// and cost more. thread is in [0, threads()). Returns when all of it is done. `body` must not
  /// throw.
  using Body = std::function<void(size_t begin, size_t end, int thread)>;
  void ParallelFor(size_t count, size_t grain, const Body& body, size_t chunks_per_thread = 4) {
    ParallelForBeside(nullptr, count, grain, body, chunks_per_thread);
  }
  /// The same, and the calling thread runs `first`, if it is given, before it takes a part, while
  /// the others have begun. `first` may call ParallelFor: a thread takes from those loops before it
  /// takes from this one again. It must not throw either.
  using Task = std::function<void()>;
  void ParallelForBeside(const Task& first, size_t count, size_t grain, const Body& body,
                         size_t chunks_per_thread = 4);

 private:
  class Loop;
  struct Impl;
  int threads_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::base
