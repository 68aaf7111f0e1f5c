#include "services/base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/spinner.h"
#include "services/base/status.h"

namespace expertmesh::base {
namespace {

// Returns when `value` is not `old` any more: looks first, then sleeps.
template <class T>
void AwaitChange(const std::atomic<T>& value, T old, Spinner& spinner) {
  if (spinner.Until([&] { return value.load(std::memory_order_acquire) != old; })) return;
  const auto start = std::chrono::steady_clock::now();
  value.wait(old, std::memory_order_acquire);
  spinner.SleptFor(std::chrono::steady_clock::now() - start);
}

// From now on the calling thread, once woken, waits for a core.
void GiveWay() {
  const sched_param priority = {};
  sched_setscheduler(0, SCHED_BATCH, &priority);
}

// The calling thread; a CPU that has gone meanwhile changes nothing.
void BindTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof(set), &set);
}

}  // namespace

std::vector<int> AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

ComputeThreads OnePerCpu(int count) {
  const std::vector<int> allowed = AllowedCpus();
  return {count, allowed.size() == static_cast<size_t>(count) ? allowed : std::vector<int>()};
}

absl::Status CheckComputeThreads(const ComputeThreads& threads) {
  if (threads.cpus.empty()) return absl::OkStatus();
  if (threads.cpus.size() != static_cast<size_t>(threads.count)) {
    return Error(Reason::kInvalidArgument, absl::StrCat("--cpus names ", threads.cpus.size(),
                                                        " for ", threads.count, " threads"));
  }
  const std::vector<int> allowed = AllowedCpus();
  for (const int cpu : threads.cpus) {
    if (std::find(allowed.begin(), allowed.end(), cpu) != allowed.end()) continue;
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("--cpus: this process may not use CPU ", cpu,
                              " (taskset -p shows those that it may)"));
  }
  return absl::OkStatus();
}

struct ThreadPool::Impl {
  // Who may still take what: the loop in the upper half, chunks that nobody has taken in the lower.
  // A loop ends when its chunks have been worked on, whoever did it: a thread that still sleeps, or
  // that another process keeps from its core, is not waited for. Such a thread may look at a loop
  // long after it ended; it then finds no chunk left, or takes one of a later loop.
  std::atomic<uint64_t> open{0};
  std::atomic<uint32_t> unfinished{0};  // chunks of the loop
  std::atomic<uint32_t> generation{0};  // a new value is a new loop, or the end
  std::atomic<bool> stop{false};
  // Of the loop; written before `open`. Who has taken a chunk of it has read them as they are:
  // the loop cannot have ended before.
  std::atomic<const Body*> body{nullptr};
  std::atomic<size_t> count{0};
  std::atomic<size_t> grain{1};
  std::vector<int> cpus;  // of each thread, the caller's first; or empty
  bool helpers_give_way = false;
  std::vector<std::thread> threads;
  Spinner caller_spinner;

  static constexpr uint64_t kChunks = 0xffff'ffff;

  void Drain(int thread) {
    uint64_t seen = open.load(std::memory_order_acquire);
    while ((seen & kChunks) != 0) {
      const Body* const loop = body.load(std::memory_order_relaxed);
      const size_t all = count.load(std::memory_order_relaxed);
      const size_t step = grain.load(std::memory_order_relaxed);
      if (!open.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire)) continue;
      const size_t begin = ((all + step - 1) / step - (seen & kChunks)) * step;
      (*loop)(begin, std::min(begin + step, all), thread);
      if (unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished.notify_one();
      seen = open.load(std::memory_order_acquire);
    }
  }

  void BindCaller() const {
    thread_local const Impl* bound_by = nullptr;
    if (cpus.empty() || bound_by == this) return;
    bound_by = this;
    BindTo(cpus.front());
  }

  void Run(int thread) {
    if (!cpus.empty()) BindTo(cpus[static_cast<size_t>(thread)]);
    if (helpers_give_way) GiveWay();
    Spinner spinner;
    for (uint32_t seen = 0;;) {
      AwaitChange(generation, seen, spinner);
      if (stop.load(std::memory_order_relaxed)) return;
      seen = generation.load(std::memory_order_acquire);
      Drain(thread);
    }
  }

  void Announce() {
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
  }
};

ThreadPool::ThreadPool(const ComputeThreads& threads)
    : threads_(std::max(1, threads.count)), impl_(std::make_unique<Impl>()) {
  impl_->cpus = threads.cpus;
  impl_->helpers_give_way = threads.helpers_give_way;
  for (int i = 1; i < threads_; ++i) {
    impl_->threads.emplace_back([impl = impl_.get(), i] { impl->Run(i); });
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop.store(true, std::memory_order_relaxed);
  impl_->Announce();
  for (std::thread& t : impl_->threads) t.join();
}

void ThreadPool::ParallelFor(size_t count, size_t grain, const Body& body,
                             size_t chunks_per_thread) {
  if (count == 0) return;
  impl_->BindCaller();
  grain = std::max<size_t>(1, grain);
  if (threads_ == 1 || count <= grain) {
    body(0, count, 0);
    return;
  }
  Impl& s = *impl_;
  const size_t most = static_cast<size_t>(threads_) * chunks_per_thread;
  grain = std::max(grain, (count + most - 1) / most);
  const uint32_t chunks = static_cast<uint32_t>((count + grain - 1) / grain);
  s.body.store(&body, std::memory_order_relaxed);
  s.count.store(count, std::memory_order_relaxed);
  s.grain.store(grain, std::memory_order_relaxed);
  s.unfinished.store(chunks, std::memory_order_relaxed);
  s.open.store(((s.open.load(std::memory_order_relaxed) >> 32) + 1) << 32 | chunks,
               std::memory_order_release);
  s.Announce();
  s.Drain(0);
  for (uint32_t left = s.unfinished.load(std::memory_order_acquire); left != 0;
       left = s.unfinished.load(std::memory_order_acquire)) {
    AwaitChange(s.unfinished, left, s.caller_spinner);
  }
}

}  // namespace expertmesh::base
