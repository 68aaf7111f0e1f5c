// A reactor that a waiting thread polls itself: what arrives is handled on the thread that waits
// for it, and no other has to be woken. While nobody waits, a thread of its own polls.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

#include "services/base/clock.h"
#include "services/transport/bell.h"
#include "services/transport/reactor.h"

namespace expertmesh::transport::internal {

/// Thread-safe, but for Wait: one thread at a time.
class SharedReactor {
 public:
  SharedReactor();
  ~SharedReactor();
  SharedReactor(const SharedReactor&) = delete;
  SharedReactor& operator=(const SharedReactor&) = delete;

  Reactor& reactor() { return reactor_; }
  /// As Transport::Wait, until one of the bells rings; takes none of them.
  void Wait(std::span<Bell* const> bells, std::optional<base::Micros> wait);

 private:
  void Run();
  bool SomebodyWaits() const;

  Reactor reactor_;
  std::atomic<bool> waiting_{false};      // a thread is in Wait
  std::atomic<int64_t> last_wait_us_{0};  // when one was
  std::atomic<bool> own_thread_polls_{false};
  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stop_ = false;  // guarded by mutex_
  std::thread own_thread_;
};

}  // namespace expertmesh::transport::internal
