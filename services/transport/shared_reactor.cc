#include "services/transport/shared_reactor.h"

#include <algorithm>
#include <chrono>

namespace expertmesh::transport::internal {
namespace {

// A thread that waited so lately will wait again: the own thread leaves the reactor to it.
constexpr std::chrono::milliseconds kWaiterKept{10};
constexpr std::chrono::seconds kOwnPoll{1};

int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

SharedReactor::SharedReactor() : own_thread_([this] { Run(); }) {}

SharedReactor::~SharedReactor() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_all();
  reactor_.Kick();
  own_thread_.join();
}

void SharedReactor::Wait(std::span<Bell* const> bells, std::optional<base::Micros> wait) {
  if (std::any_of(bells.begin(), bells.end(), [](const Bell* bell) { return bell->rung(); }))
    return;
  waiting_.store(true, std::memory_order_seq_cst);
  if (own_thread_polls_.load(std::memory_order_seq_cst)) reactor_.Kick();
  reactor_.Poll(bells, wait);
  last_wait_us_.store(NowMicros(), std::memory_order_relaxed);
  waiting_.store(false, std::memory_order_seq_cst);
}

bool SharedReactor::SomebodyWaits() const {
  const int64_t kept = std::chrono::microseconds(kWaiterKept).count();
  return waiting_.load(std::memory_order_seq_cst) ||
         NowMicros() - last_wait_us_.load(std::memory_order_relaxed) < kept;
}

void SharedReactor::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    own_thread_polls_.store(true, std::memory_order_seq_cst);
    if (SomebodyWaits()) {
      own_thread_polls_.store(false, std::memory_order_relaxed);
      stopping_.wait_for(lock, kWaiterKept);
      continue;
    }
    lock.unlock();
    reactor_.Poll({}, kOwnPoll);
    own_thread_polls_.store(false, std::memory_order_relaxed);
    lock.lock();
  }
}

}  // namespace expertmesh::transport::internal
