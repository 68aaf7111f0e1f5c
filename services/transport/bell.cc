#include "services/transport/bell.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace expertmesh::transport {

Bell::Bell() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!event_.valid()) {
    std::fprintf(stderr, "eventfd: %s\n", strerror(errno));
    std::abort();
  }
}

void Bell::Ring() {
  rung_.store(true, std::memory_order_seq_cst);
  if (!asleep_.exchange(false, std::memory_order_seq_cst)) return;
  const uint64_t one = 1;
  (void)!write(event_.get(), &one, sizeof(one));  // a full counter wakes as well
}

bool Bell::Take() {
  return rung_.load(std::memory_order_relaxed) && rung_.exchange(false, std::memory_order_acq_rel);
}

bool Bell::PrepareSleep() {
  prepared_ = true;
  asleep_.store(true, std::memory_order_seq_cst);
  if (!rung_.load(std::memory_order_seq_cst)) return true;
  Awake();
  return false;
}

void Bell::Awake() {
  if (!std::exchange(prepared_, false)) return;
  // Somebody else has cleared it only to write, and may be about to: what came later would keep
  // this thread from ever sleeping.
  if (asleep_.exchange(false, std::memory_order_seq_cst)) return;
  uint64_t count = 0;
  while (read(event_.get(), &count, sizeof(count)) < 0 && errno == EAGAIN) sched_yield();
}

void Bell::Wait(std::optional<base::Micros> wait) {
  if (spinner_.Until([&] { return Take(); })) return;
  const auto start = std::chrono::steady_clock::now();
  if (PrepareSleep()) {
    pollfd entry = {event_.get(), POLLIN, 0};
    const timespec time = ToTimespec(wait.value_or(base::Micros(0)));
    ppoll(&entry, 1, wait ? &time : nullptr, nullptr);
    Awake();
    spinner_.SleptFor(std::chrono::steady_clock::now() - start);
  }
  Take();
}

timespec ToTimespec(base::Micros wait) {
  constexpr int64_t kMicrosPerSecond = 1'000'000;
  const int64_t us = std::max<int64_t>(0, wait.count());
  return {static_cast<time_t>(us / kMicrosPerSecond),
          static_cast<long>(us % kMicrosPerSecond) * 1000};
}

}  // namespace expertmesh::transport
