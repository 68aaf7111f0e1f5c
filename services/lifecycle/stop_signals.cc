#include "services/lifecycle/stop_signals.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>

#include "services/base/status.h"

namespace expertmesh::lifecycle {
namespace {

constexpr int kNoDescriptor = -1;
constexpr int kSecondSignalStatus = 130;

// Read by the signal handler: lock-free atomics only.
std::atomic<int> received{0};
struct Slot {
  std::atomic<int> event_fd{kNoDescriptor};
};
constinit std::array<Slot, StopSignals::kSubscribersMax> slots;
static_assert(std::atomic<int>::is_always_lock_free);

std::mutex subscribers_mutex;
int subscribers = 0;  // guarded by subscribers_mutex

void Notify(int event_fd) {
  const uint64_t one = 1;
  // The counter cannot overflow here and the descriptor is open, so the write cannot fail.
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
}

void HandleStopSignal(int signal) {
  const int saved_errno = errno;
  if (received.exchange(signal) != 0) {
    constexpr char kMessage[] = "second stop signal: leaving at once\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
    _exit(kSecondSignalStatus);
  }
  for (Slot& slot : slots) {
    const int event_fd = slot.event_fd;
    if (event_fd != kNoDescriptor) Notify(event_fd);
  }
  errno = saved_errno;
}

absl::Status SetHandlers(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGTERM, &action, nullptr) != 0 || sigaction(SIGINT, &action, nullptr) != 0) {
    return base::Error(base::Reason::kInternal,
                       std::string("cannot set the stop signal handlers: ") + strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StopSignals>> StopSignals::Subscribe() {
  std::lock_guard lock(subscribers_mutex);
  if (subscribers == kSubscribersMax) {
    return base::Error(base::Reason::kQueueFull,
                       "too many Processes in one operating-system process");
  }
  const int event_fd = eventfd(0, EFD_CLOEXEC);
  if (event_fd < 0) {
    return base::Error(base::Reason::kInternal,
                       std::string("cannot make an event descriptor: ") + strerror(errno));
  }
  if (subscribers == 0) {
    received = 0;
    signal(SIGPIPE, SIG_IGN);
    if (absl::Status set = SetHandlers(HandleStopSignal); !set.ok()) {
      close(event_fd);
      return set;
    }
  }
  ++subscribers;
  for (Slot& slot : slots) {
    int expected = kNoDescriptor;
    if (slot.event_fd.compare_exchange_strong(expected, event_fd)) break;
  }
  if (received != 0) Notify(event_fd);  // it came before the slot was filled
  return std::unique_ptr<StopSignals>(new StopSignals(event_fd));
}

StopSignals::~StopSignals() {
  std::lock_guard lock(subscribers_mutex);
  for (Slot& slot : slots) {
    int expected = event_fd_;
    if (slot.event_fd.compare_exchange_strong(expected, kNoDescriptor)) break;
  }
  if (--subscribers == 0) SetHandlers(SIG_DFL).IgnoreError();
  close(event_fd_);
}

void StopSignals::Wait() {
  uint64_t count = 0;
  while (read(event_fd_, &count, sizeof(count)) < 0 && errno == EINTR) {
  }
}

void StopSignals::Wake() { Notify(event_fd_); }

int StopSignals::Received() { return received; }

}  // namespace expertmesh::lifecycle
