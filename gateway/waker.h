// Lets any thread wake a coroutine that waits on its strand.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>

namespace expertmesh::gateway {

/// Made, waited on and destroyed on the strand. A wake that comes while nobody waits is not kept:
/// look for news, then Wait, without giving up the strand between.
class Waker {
 public:
  explicit Waker(const boost::asio::any_io_executor& strand);
  ~Waker();
  Waker(const Waker&) = delete;
  Waker& operator=(const Waker&) = delete;

  /// True when woken, false when the time is over.
  boost::asio::awaitable<bool> Wait(std::chrono::milliseconds time);
  /// Wakes the waiter, on the strand.
  void Wake() { timer_.cancel(); }
  /// Thread-safe; outlives the Waker and then does nothing.
  std::function<void()> Handle() const;

 private:
  struct Shared;
  boost::asio::steady_timer timer_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace expertmesh::gateway
