// How a thread waits for others: it looks for at most 20 µs, then sleeps on a descriptor, so that
// one sleep can cover bells, sockets and shared memory.
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <mutex>
#include <optional>

#include "services/base/clock.h"
#include "services/transport/unique_fd.h"

namespace expertmesh::transport {

inline constexpr std::chrono::microseconds kSpinMax{20};

/// Tells the processor that this thread only looks.
inline void SpinPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Looking before sleeping, as long as it pays. One owner.
class Spinner {
 public:
  /// Calls look() until it is true, for kSpinMax at most; only once if looking has not paid lately.
  template <class Look>
  bool Until(Look look) {
    if (look()) return true;
    if (misses_ >= kMissesMax && ++skipped_ < kTryEvery) return false;
    skipped_ = 0;
    const auto end = std::chrono::steady_clock::now() + kSpinMax;
    do {
      for (int i = 0; i < kLooksPerClock; ++i) {
        SpinPause();
        if (look()) {
          misses_ = 0;
          return true;
        }
      }
      sched_yield();  // whom this thread waits for may need its core
    } while (std::chrono::steady_clock::now() < end);
    if (misses_ < kMissesMax) ++misses_;
    return false;
  }
  /// A sleep was so short that looking would have been better.
  void SleptFor(std::chrono::steady_clock::duration slept) {
    if (slept < kSpinMax) misses_ = 0;
  }

 private:
  static constexpr int kMissesMax = 4;
  static constexpr int kTryEvery = 64;
  static constexpr int kLooksPerClock = 8;
  int misses_ = 0;
  int skipped_ = 0;
};

/// How to wake an owner that sleeps on something else than a descriptor. Any thread.
class Waker {
 public:
  virtual ~Waker() = default;
  virtual void Wake() = 0;
};

/// Rung by any thread, waited for by one. A ring before the wait is not lost.
class Bell {
 public:
  Bell();  // aborts if the system has no descriptor left
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  void Ring();

  /// True once per time that it was rung.
  bool Take();
  bool rung() const { return rung_.load(std::memory_order_acquire); }
  /// Waits until it is rung, and takes that; or until `wait` is over (nothing: for ever).
  void Wait(std::optional<base::Micros> wait);

  /// For a sleep over several things: true if one may sleep on fd() now; then Awake. A waker is
  /// woken as well, and not touched any more after Awake.
  bool PrepareSleep(Waker* waker = nullptr);
  void Awake();
  int fd() const { return event_.get(); }

 private:
  UniqueFd event_;
  std::atomic<bool> rung_{false};
  std::atomic<bool> asleep_{false};
  std::mutex waker_mutex_;
  Waker* waker_ = nullptr;  // guarded by waker_mutex_; changed by the waiting thread
  Spinner spinner_;         // of the waiting thread
};

/// For poll: milliseconds and nanoseconds of a wait that is not negative.
timespec ToTimespec(base::Micros wait);

}  // namespace expertmesh::transport
