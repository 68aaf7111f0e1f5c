// The reactor wakes whoever polls it for everything it was asked for.
#include "services/transport/reactor.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "services/transport/shared_reactor.h"

namespace expertmesh::transport::internal {
namespace {

using Clock = Reactor::Clock;
constexpr auto kPatience = std::chrono::seconds(20);

/// A thread that polls without an end of its own.
class Poller {
 public:
  explicit Poller(Reactor& reactor)
      : reactor_(reactor), thread_([this] {
          while (!stop_) reactor_.Poll({}, std::nullopt);
        }) {}
  ~Poller() {
    stop_ = true;
    reactor_.Kick();
    thread_.join();
  }

 private:
  Reactor& reactor_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// Something that happens once.
class Event {
 public:
  void Happen() {
    std::lock_guard lock(mutex_);
    happened_ = true;
    changed_.notify_all();
  }
  bool Wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return happened_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool happened_ = false;
};

// The poller sleeps without an end, or until a work of later: each new first work has to wake it.
TEST(ReactorTest, WorkOfAnotherThreadWakesTheSleeper) {
  Reactor reactor;
  const Poller poller(reactor);
  for (int i = 0; i < 50; ++i) {
    Event event;
    reactor.At(Clock::now() + kPatience * 10, [] {});
    reactor.At(Clock::now() + std::chrono::milliseconds(i % 3), [&] { event.Happen(); });
    ASSERT_TRUE(event.Wait()) << i;
  }
}

TEST(ReactorTest, TheOwnThreadOfASharedOneIsWokenAsWell) {
  SharedReactor shared;
  const auto start = Clock::now();
  for (int i = 0; i < 10; ++i) {
    Event event;
    shared.reactor().At(Clock::now(), [&] { event.Happen(); });
    ASSERT_TRUE(event.Wait());
  }
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));  // it looks on its own every second
}

TEST(ReactorTest, WorkRunsInTheOrderOfItsTimes) {
  Reactor reactor;
  std::vector<int> order;
  const auto now = Clock::now();
  reactor.At(now + std::chrono::milliseconds(3), [&] { order.push_back(3); });
  reactor.At(now + std::chrono::milliseconds(1), [&] { order.push_back(1); });
  reactor.At(now + std::chrono::milliseconds(2), [&] { order.push_back(2); });
  while (order.size() < 3 && Clock::now() < now + kPatience) reactor.Poll({}, base::Micros(1000));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

struct Counter final : Reactor::Handler {
  void OnReady(std::span<std::byte>) override { ++count; }
  int count = 0;
};

TEST(ReactorTest, ADescriptorIsHandledWhileItIsWatchedAndNotAfterwards) {
  Reactor reactor;
  const UniqueFd fd(eventfd(1, EFD_NONBLOCK));
  const auto counter = std::make_shared<Counter>();
  reactor.Add(fd.get(), counter, /*write=*/false);
  EXPECT_TRUE(reactor.Poll({}, base::Micros(0)));
  EXPECT_EQ(counter->count, 1);
  reactor.Watch(fd.get(), /*read=*/false, /*write=*/false);
  EXPECT_FALSE(reactor.Poll({}, base::Micros(0)));
  reactor.Watch(fd.get(), /*read=*/false, /*write=*/true);
  EXPECT_TRUE(reactor.Poll({}, base::Micros(0)));
  reactor.Remove(fd.get());
  EXPECT_FALSE(reactor.Poll({}, base::Micros(0)));
  EXPECT_EQ(counter->count, 2);
}

// A ring between Prepare and the end of the sleep is taken in whole: later sleeps are sleeps.
TEST(ReactorTest, ABellEndsOneSleepAndLeavesNothingBehind) {
  Reactor reactor;
  Bell bell;
  Bell* const bells[] = {&bell};
  for (int i = 0; i < 200; ++i) {
    std::thread ringer([&] { bell.Ring(); });
    while (!bell.Take()) reactor.Poll(bells, std::nullopt);
    ringer.join();
  }
  const auto start = Clock::now();
  reactor.Poll(bells, base::Micros(20'000));
  EXPECT_GE(Clock::now() - start, std::chrono::milliseconds(20));
}

}  // namespace
}  // namespace expertmesh::transport::internal
