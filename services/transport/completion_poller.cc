#include "services/transport/completion_poller.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace expertmesh::transport::internal {
namespace {

using SystemClock = std::chrono::system_clock;  // gRPC's deadlines are of it

// A thread that waited so lately will wait again: the own thread leaves the queue to it.
constexpr std::chrono::milliseconds kWaiterKept{10};
constexpr std::chrono::milliseconds kHelp{10};
constexpr std::chrono::seconds kOwnPoll{1};

int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void Handle(void* tag, bool ok) { static_cast<CompletionTag*>(tag)->OnEvent(ok); }

}  // namespace

CompletionPoller::CompletionPoller() : own_thread_([this] { Run(); }) {}

CompletionPoller::~CompletionPoller() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_all();
  queue_.Shutdown();
  own_thread_.join();
  DoDeferred();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) Handle(tag, ok);
}

void CompletionPoller::KickTag::OnEvent(bool /*ok*/) {
  std::lock_guard lock(poller_.kick_mutex_);
  poller_.kicked_ = false;
}

void CompletionPoller::Wake() {
  std::lock_guard lock(kick_mutex_);
  if (kicked_) return;
  kicked_ = true;
  kick_.Set(&queue_, SystemClock::now(), static_cast<CompletionTag*>(&kick_tag_));
}

void CompletionPoller::Wait(std::span<Bell* const> bells, std::optional<base::Micros> wait) {
  if (std::any_of(bells.begin(), bells.end(), [](const Bell* bell) { return bell->rung(); }))
    return;
  DoDeferred();
  waiting_.store(true, std::memory_order_seq_cst);
  if (own_thread_polls_.load(std::memory_order_seq_cst)) Wake();
  bool may_sleep = true;
  for (Bell* bell : bells) may_sleep = bell->PrepareSleep(this) && may_sleep;
  void* tag = nullptr;
  bool ok = false;
  auto got = grpc::CompletionQueue::TIMEOUT;
  if (may_sleep) {
    const auto deadline = wait ? SystemClock::now() + std::chrono::microseconds(wait->count())
                               : SystemClock::time_point::max();
    got = queue_.AsyncNext(&tag, &ok, deadline);
  }
  for (Bell* bell : bells) bell->Awake();
  if (got == grpc::CompletionQueue::GOT_EVENT) Handle(tag, ok);
  last_wait_us_.store(NowMicros(), std::memory_order_relaxed);
  waiting_.store(false, std::memory_order_seq_cst);
}

// On another thread than the one in Wait: what should have woken that one goes on to it.
void CompletionPoller::HandleForOthers(void* tag, bool ok) {
  Handle(tag, ok);
  const bool kick = tag == static_cast<CompletionTag*>(&kick_tag_);
  if (kick && waiting_.load(std::memory_order_seq_cst)) Wake();
}

void CompletionPoller::Later(std::function<void()> work) {
  std::lock_guard lock(deferred_mutex_);
  deferred_.push_back(std::move(work));
}

void CompletionPoller::DoDeferred() {
  std::vector<std::function<void()>> deferred;
  {
    std::lock_guard lock(deferred_mutex_);
    deferred.swap(deferred_);
  }
  for (const auto& work : deferred) work();
}

void CompletionPoller::Help() {
  DoDeferred();
  void* tag = nullptr;
  bool ok = false;
  const auto got = queue_.AsyncNext(&tag, &ok, SystemClock::now() + kHelp);
  if (got == grpc::CompletionQueue::GOT_EVENT) HandleForOthers(tag, ok);
}

bool CompletionPoller::SomebodyWaits() const {
  const int64_t kept = std::chrono::microseconds(kWaiterKept).count();
  return waiting_.load(std::memory_order_seq_cst) ||
         NowMicros() - last_wait_us_.load(std::memory_order_relaxed) < kept;
}

void CompletionPoller::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    own_thread_polls_.store(true, std::memory_order_seq_cst);
    if (SomebodyWaits()) {
      own_thread_polls_.store(false, std::memory_order_relaxed);
      stopping_.wait_for(lock, kWaiterKept);
      continue;
    }
    lock.unlock();
    DoDeferred();
    void* tag = nullptr;
    bool ok = false;
    const auto got = queue_.AsyncNext(&tag, &ok, SystemClock::now() + kOwnPoll);
    own_thread_polls_.store(false, std::memory_order_relaxed);
    if (got == grpc::CompletionQueue::GOT_EVENT) HandleForOthers(tag, ok);
    lock.lock();
    if (got == grpc::CompletionQueue::SHUTDOWN) return;
  }
}

}  // namespace expertmesh::transport::internal
