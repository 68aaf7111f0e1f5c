#include "services/transport/reactor.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace expertmesh::transport::internal {
namespace {

constexpr size_t kScratchBytes = size_t{256} << 10;
constexpr int kEventsMax = 16;
constexpr size_t kBellsMax = 2;

int OrAbort(int fd, const char* what) {
  if (fd >= 0) return fd;
  std::fprintf(stderr, "%s: %s\n", what, strerror(errno));
  std::abort();
}

epoll_event Event(int fd, bool read, bool write) {
  epoll_event event = {};
  event.events = (read ? EPOLLIN : 0u) | (write ? EPOLLOUT : 0u);
  event.data.fd = fd;
  return event;
}

}  // namespace

Reactor::Reactor()
    : epoll_(OrAbort(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      kick_(OrAbort(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      scratch_(kScratchBytes) {
  epoll_event event = Event(kick_.get(), true, false);
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, kick_.get(), &event);
}

void Reactor::Add(int fd, std::shared_ptr<Handler> handler, bool write) {
  {
    std::lock_guard lock(mutex_);
    handlers_[fd] = std::move(handler);
  }
  epoll_event event = Event(fd, true, write);
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void Reactor::Watch(int fd, bool read, bool write) {
  epoll_event event = Event(fd, read, write);
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Reactor::Remove(int fd) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  std::lock_guard lock(mutex_);
  handlers_.erase(fd);
}

void Reactor::At(Clock::time_point time, std::function<void()> work) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    const auto added = works_.emplace(time, std::move(work));
    first = added == works_.begin();
  }
  if (first) Kick();  // whoever sleeps has a later one in mind
}

void Reactor::Kick() {
  const uint64_t one = 1;
  (void)!write(kick_.get(), &one, sizeof(one));  // a full counter wakes as well
}

std::optional<base::Micros> Reactor::UntilNextWork(std::optional<base::Micros> wait) {
  std::lock_guard lock(mutex_);
  if (works_.empty()) return wait;
  const auto left = std::chrono::duration_cast<base::Micros>(works_.begin()->first - Clock::now()) +
                    base::Micros(1);
  return std::max(base::Micros(0), std::min(left, wait.value_or(left)));
}

void Reactor::DoDueWork() {
  for (;;) {
    std::function<void()> work;
    {
      std::lock_guard lock(mutex_);
      if (works_.empty() || works_.begin()->first > Clock::now()) return;
      work = std::move(works_.begin()->second);
      works_.erase(works_.begin());
    }
    work();
  }
}

bool Reactor::HandleReady(int timeout_ms) {
  std::array<epoll_event, kEventsMax> events;
  const int count = epoll_wait(epoll_.get(), events.data(), kEventsMax, timeout_ms);
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<size_t>(i)].data.fd;
    if (fd == kick_.get()) {
      uint64_t kicks = 0;
      (void)!read(kick_.get(), &kicks, sizeof(kicks));
      continue;
    }
    std::shared_ptr<Handler> handler;
    {
      std::lock_guard lock(mutex_);
      const auto it = handlers_.find(fd);
      if (it != handlers_.end()) handler = it->second;
    }
    if (handler) handler->OnReady(scratch_);
  }
  return count > 0;
}

bool Reactor::Poll(std::span<Bell* const> bells, std::optional<base::Micros> wait) {
  std::lock_guard polling(polling_);
  DoDueWork();
  const auto most = UntilNextWork(wait);
  if (bells.empty()) {  // one sleep and one look in one call
    constexpr int64_t kMicrosPerMilli = 1000;
    const auto timeout = most ? (most->count() + kMicrosPerMilli - 1) / kMicrosPerMilli : -1;
    return HandleReady(static_cast<int>(timeout));
  }
  bool may_sleep = true;
  std::array<pollfd, kBellsMax + 1> fds;
  fds[0] = {epoll_.get(), POLLIN, 0};
  for (size_t i = 0; i < bells.size(); ++i) {
    may_sleep = bells[i]->PrepareSleep() && may_sleep;
    fds[i + 1] = {bells[i]->fd(), POLLIN, 0};
  }
  if (may_sleep) {
    const timespec time = ToTimespec(most.value_or(base::Micros(0)));
    ppoll(fds.data(), bells.size() + 1, most ? &time : nullptr, nullptr);
  }
  for (Bell* bell : bells) bell->Awake();
  return may_sleep && (fds[0].revents & POLLIN) != 0 && HandleReady(0);
}

}  // namespace expertmesh::transport::internal
