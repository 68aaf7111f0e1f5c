// A thread's bell: others ring, it sleeps until then or until a moment of its own.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace expertmesh::rpc {

/// Thread-safe; one waiter. A ring before the wait is not lost.
class Wakeup {
 public:
  void Ring() {
    std::lock_guard lock(mutex_);
    rung_ = true;
    changed_.notify_one();
  }
  void WaitUntil(std::chrono::steady_clock::time_point moment) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, moment, [&] { return rung_; });
    rung_ = false;
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return rung_; });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;  // guarded by mutex_
};

}  // namespace expertmesh::rpc
