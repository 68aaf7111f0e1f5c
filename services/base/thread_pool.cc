#include "services/base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <array>
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

// A loop that is open for threads to take part in, one after another over the pool's life.
class ThreadPool::Loop {
 public:
  void Open(const Body& body, size_t count, size_t grain) {
    const auto chunks = static_cast<uint32_t>((count + grain - 1) / grain);
    body_.store(&body, std::memory_order_relaxed);
    count_.store(count, std::memory_order_relaxed);
    grain_.store(grain, std::memory_order_relaxed);
    unfinished_.store(chunks, std::memory_order_relaxed);
    open_.store(((open_.load(std::memory_order_relaxed) >> 32) + 1) << 32 | chunks,
                std::memory_order_release);
  }
  // Works on a chunk that nobody has taken; false if there is none.
  bool TakeOne(int thread) {
    uint64_t seen = open_.load(std::memory_order_acquire);
    while ((seen & kChunks) != 0) {
      const Body* const body = body_.load(std::memory_order_relaxed);
      const size_t count = count_.load(std::memory_order_relaxed);
      const size_t grain = grain_.load(std::memory_order_relaxed);
      if (!open_.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire)) continue;
      const size_t begin = ((count + grain - 1) / grain - (seen & kChunks)) * grain;
      (*body)(begin, std::min(begin + grain, count), thread);
      if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
      return true;
    }
    return false;
  }
  // Until all chunks have been worked on.
  void Await(Spinner& spinner) {
    for (uint32_t left = unfinished_.load(std::memory_order_acquire); left != 0;
         left = unfinished_.load(std::memory_order_acquire)) {
      AwaitChange(unfinished_, left, spinner);
    }
  }

 private:
  static constexpr uint64_t kChunks = 0xffff'ffff;

  // Who may still take what: the loop in the upper half, chunks that nobody has taken in the lower.
  // A loop ends when its chunks have been worked on, whoever did it: a thread that still sleeps, or
  // that another process keeps from its core, is not waited for. Such a thread may look at a loop
  // long after it ended; it then finds no chunk left, or takes one of a later loop.
  std::atomic<uint64_t> open_{0};
  std::atomic<uint32_t> unfinished_{0};  // chunks
  // Written before `open_`. Who has taken a chunk has read them as they are: the loop cannot have
  // ended before.
  std::atomic<const Body*> body_{nullptr};
  std::atomic<size_t> count_{0};
  std::atomic<size_t> grain_{1};
};

struct ThreadPool::Impl {
  std::array<Loop, 2> loops;            // the second is what the first one's caller does beside it
  size_t depth = 0;                     // loops that are open, for the caller
  std::atomic<uint32_t> generation{0};  // a new value is a new loop, or the end
  std::atomic<bool> stop{false};
  std::vector<int> cpus;  // of each thread, the caller's first; or empty
  bool helpers_give_way = false;
  std::vector<std::thread> threads;
  Spinner caller_spinner;

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
      seen = generation.load(std::memory_order_acquire);  // before the look at `stop` it comes with
      if (stop.load(std::memory_order_relaxed)) return;
      while (loops[1].TakeOne(thread) || loops[0].TakeOne(thread)) {
      }
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

void ThreadPool::ParallelForBeside(const Task& first, size_t count, size_t grain, const Body& body,
                                   size_t chunks_per_thread) {
  Impl& s = *impl_;
  grain = std::max<size_t>(1, grain);
  if (count > 0) s.BindCaller();
  if (threads_ == 1 || count <= grain || s.depth == s.loops.size()) {
    if (first) first();
    if (count > 0) body(0, count, 0);
    return;
  }
  const size_t most = static_cast<size_t>(threads_) * chunks_per_thread;
  grain = std::max(grain, (count + most - 1) / most);
  Loop& loop = s.loops[s.depth];
  loop.Open(body, count, grain);
  s.Announce();
  ++s.depth;
  if (first) first();
  while (loop.TakeOne(0)) {
  }
  loop.Await(s.caller_spinner);
  --s.depth;
}

}  // namespace expertmesh::base
