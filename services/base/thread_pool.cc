#include "services/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace expertmesh::base {
namespace {

// A step of the model is a row of loops with little between them: a thread that slept would cost
// more to wake than the loop takes.
constexpr auto kSpin = std::chrono::microseconds(20);
constexpr int kPausesPerClockRead = 16;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns when `value` is not `old` any more: spins first, then sleeps.
template <class T>
void AwaitChange(const std::atomic<T>& value, T old) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      Pause();
    }
    std::this_thread::yield();  // another process may have work for this core
  } while (std::chrono::steady_clock::now() < end);
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::Impl {
  // A new value is a new loop, or the end; body, count and grain are written before it.
  std::atomic<uint32_t> generation{0};
  std::atomic<int> working{0};  // threads still inside the loop
  std::atomic<size_t> next{0};
  bool stop = false;
  const Body* body = nullptr;
  size_t count = 0;
  size_t grain = 1;
  std::vector<std::thread> threads;

  void Drain(int thread) {
    for (;;) {
      const size_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      (*body)(begin, std::min(begin + grain, count), thread);
    }
  }

  void Run(int thread) {
    for (uint32_t seen = 0;; ++seen) {
      AwaitChange(generation, seen);
      if (stop) return;
      Drain(thread);
      if (working.fetch_sub(1, std::memory_order_acq_rel) == 1) working.notify_one();
    }
  }

  void Announce() {
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
  }
};

ThreadPool::ThreadPool(int threads)
    : threads_(std::max(1, threads)), impl_(std::make_unique<Impl>()) {
  for (int i = 1; i < threads_; ++i) {
    impl_->threads.emplace_back([impl = impl_.get(), i] { impl->Run(i); });
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop = true;
  impl_->Announce();
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
  const size_t chunks = static_cast<size_t>(threads_) * 4;
  s.body = &body;
  s.count = count;
  s.grain = std::max(grain, (count + chunks - 1) / chunks);
  s.next.store(0, std::memory_order_relaxed);
  s.working.store(threads_ - 1, std::memory_order_relaxed);
  s.Announce();
  s.Drain(0);
  for (int left = s.working.load(std::memory_order_acquire); left != 0;
       left = s.working.load(std::memory_order_acquire)) {
    AwaitChange(s.working, left);
  }
}

}  // namespace expertmesh::base
