#include "services/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace expertmesh::base {

struct ThreadPool::Impl {
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable done;
  uint64_t generation = 0;  // guarded by mutex; a new value is a new loop
  bool stop = false;        // guarded by mutex
  int working = 0;          // guarded by mutex: threads still inside the loop
  const Body* body = nullptr;
  size_t count = 0;
  size_t grain = 1;
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;

  void Drain(int thread) {
    for (;;) {
      const size_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      (*body)(begin, std::min(begin + grain, count), thread);
    }
  }

  void Run(int thread) {
    uint64_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return stop || generation != seen; });
      if (stop) return;
      seen = generation;
      lock.unlock();
      Drain(thread);
      lock.lock();
      if (--working == 0) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads)
    : threads_(std::max(1, threads)), impl_(std::make_unique<Impl>()) {
  for (int i = 1; i < threads_; ++i) {
    impl_->threads.emplace_back([impl = impl_.get(), i] { impl->Run(i); });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->wake.notify_all();
  for (std::thread& t : impl_->threads) t.join();
}

void ThreadPool::ParallelFor(size_t count, size_t grain, const Body& body) {
  if (count == 0) return;
  grain = std::max<size_t>(1, grain);
  if (threads_ == 1 || count <= grain) {
    body(0, count, 0);
    return;
  }
  Impl& s = *impl_;
  {
    std::lock_guard lock(s.mutex);
    s.body = &body;
    s.count = count;
    s.grain = std::max(grain, (count + static_cast<size_t>(threads_) * 4 - 1) /
                                  (static_cast<size_t>(threads_) * 4));
    s.next.store(0, std::memory_order_relaxed);
    s.working = threads_ - 1;
    ++s.generation;
  }
  s.wake.notify_all();
  s.Drain(0);
  std::unique_lock lock(s.mutex);
  s.done.wait(lock, [&] { return s.working == 0; });
}

}  // namespace expertmesh::base
