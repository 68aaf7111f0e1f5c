// A gRPC completion queue that a waiting thread polls itself: what arrives is handled on the thread
// that waits for it, and no other has to be woken. While nobody waits, a thread of its own polls.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "services/base/clock.h"
#include "services/transport/bell.h"

namespace expertmesh::transport::internal {

/// What an operation on the queue ends with; lives until then. Any thread that polls.
class CompletionTag {
 public:
  virtual ~CompletionTag() = default;
  virtual void OnEvent(bool ok) = 0;
};

/// Thread-safe, but for Wait: one thread at a time.
class CompletionPoller final : private Waker {
 public:
  CompletionPoller();
  /// Handles what is still pending, which must end on its own.
  ~CompletionPoller() override;
  CompletionPoller(const CompletionPoller&) = delete;
  CompletionPoller& operator=(const CompletionPoller&) = delete;

  grpc::CompletionQueue& queue() { return queue_; }
  /// As Transport::Wait, until one of the bells rings; takes none of them. Handles at most one
  /// event.
  void Wait(std::span<Bell* const> bells, std::optional<base::Micros> wait);
  /// Runs on a thread that polls, before it sleeps: what need not be done at once.
  void Later(std::function<void()> work);
  /// Handles one event, or returns after kHelp: for who waits until others' operations have ended.
  void Help();

 private:
  class KickTag final : public CompletionTag {
   public:
    explicit KickTag(CompletionPoller& poller) : poller_(poller) {}
    void OnEvent(bool ok) override;

   private:
    CompletionPoller& poller_;
  };

  void Wake() override;
  void HandleForOthers(void* tag, bool ok);
  void Run();
  void DoDeferred();
  bool SomebodyWaits() const;

  grpc::CompletionQueue queue_;
  KickTag kick_tag_{*this};
  std::mutex kick_mutex_;
  bool kicked_ = false;  // guarded by kick_mutex_; the event has not been handled yet
  grpc::Alarm kick_;     // guarded by kick_mutex_

  std::mutex deferred_mutex_;
  std::vector<std::function<void()>> deferred_;  // guarded by deferred_mutex_

  std::atomic<bool> waiting_{false};      // a thread is in Wait
  std::atomic<int64_t> last_wait_us_{0};  // when one was
  std::atomic<bool> own_thread_polls_{false};
  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stop_ = false;  // guarded by mutex_
  std::thread own_thread_;
};

}  // namespace expertmesh::transport::internal
