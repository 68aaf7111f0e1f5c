// Looking for a change before sleeping for it.
#pragma once

#include <sched.h>

#include <chrono>

namespace expertmesh::base {

/// A thread that waits looks for at most this long, then sleeps.
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

}  // namespace expertmesh::base
