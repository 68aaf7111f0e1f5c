// What the sockets of dispatch streams are waited for with: one epoll set, polled by whichever
// thread waits.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "services/base/clock.h"
#include "services/transport/bell.h"
#include "services/transport/unique_fd.h"

namespace expertmesh::transport::internal {

/// Thread-safe; one thread polls at a time, others wait for it.
class Reactor {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    /// On the polling thread; `scratch` is for what is read, and nobody else's meanwhile.
    virtual void OnReady(std::span<std::byte> scratch) = 0;
  };
  using Clock = std::chrono::steady_clock;

  Reactor();  // aborts if the system has no descriptor left

  /// `fd` stays open until Remove.
  void Add(int fd, std::shared_ptr<Handler> handler, bool write);
  /// What is waited for from now on: that something can be read, or written.
  void Watch(int fd, bool read, bool write);
  /// Once the polling thread is through with its round, the handler is not called any more.
  void Remove(int fd);
  /// `work` runs on the polling thread, not before `time`.
  void At(Clock::time_point time, std::function<void()> work);

  /// Handles what is ready; if nothing is, sleeps until something is, a bell rings (it takes none),
  /// the next work is due, `wait` is over, or somebody calls Kick. False if it slept and nothing
  /// came.
  bool Poll(std::span<Bell* const> bells, std::optional<base::Micros> wait);
  /// The thread in Poll, or the next one, returns.
  void Kick();

 private:
  std::optional<base::Micros> UntilNextWork(std::optional<base::Micros> wait);
  void DoDueWork();
  bool HandleReady(int timeout_ms);

  const UniqueFd epoll_;
  const UniqueFd kick_;
  std::mutex polling_;
  std::vector<std::byte> scratch_;  // guarded by polling_
  std::mutex mutex_;
  std::map<int, std::shared_ptr<Handler>> handlers_;               // guarded by mutex_
  std::multimap<Clock::time_point, std::function<void()>> works_;  // guarded by mutex_
};

}  // namespace expertmesh::transport::internal
