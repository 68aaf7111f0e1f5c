// SIGTERM and SIGINT as an event that a thread can wait for. Handlers are explicit, because a PID 1
// without them ignores SIGTERM. The first signal wakes every waiter; the second ends the process.
#pragma once

#include <memory>

#include "absl/status/statusor.h"

namespace expertmesh::lifecycle {

class StopSignals {
 public:
  static constexpr int kSubscribersMax = 16;  // Processes inside one operating-system process

  /// Installs the handlers with the first subscriber; the destructor of the last one restores the
  /// default action. Errors: kQueueFull beyond kSubscribersMax, kInternal if the system refuses.
  static absl::StatusOr<std::unique_ptr<StopSignals>> Subscribe();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// Blocks until a stop signal or Wake(). One thread.
  void Wait();
  /// Ends Wait(). Thread-safe.
  void Wake();
  /// The first signal since the first subscriber came, e.g. SIGTERM; 0 if none.
  static int Received();

 private:
  explicit StopSignals(int event_fd) : event_fd_(event_fd) {}
  int event_fd_;
};

}  // namespace expertmesh::lifecycle
