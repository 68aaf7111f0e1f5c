// How a thread waits for others: it looks for at most 20 µs, then sleeps on a descriptor, so that
// one sleep can cover bells, sockets and shared memory.
#pragma once

#include <atomic>
#include <chrono>
#include <ctime>
#include <optional>

#include "services/base/clock.h"
#include "services/base/spinner.h"
#include "services/transport/unique_fd.h"

namespace expertmesh::transport {

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

  /// For a sleep over several things: true if one may sleep on fd() now; then Awake.
  bool PrepareSleep();
  void Awake();
  int fd() const { return event_.get(); }

 private:
  UniqueFd event_;
  std::atomic<bool> rung_{false};
  std::atomic<bool> asleep_{false};
  bool prepared_ = false;  // of the waiting thread: PrepareSleep, and no Awake since
  base::Spinner spinner_;  // of the waiting thread
};

/// For poll: milliseconds and nanoseconds of a wait that is not negative.
timespec ToTimespec(base::Micros wait);

}  // namespace expertmesh::transport
