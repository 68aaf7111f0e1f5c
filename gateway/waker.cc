#include "gateway/waker.h"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <mutex>

namespace expertmesh::gateway {

namespace asio = boost::asio;

struct Waker::Shared : std::enable_shared_from_this<Shared> {
  std::mutex mutex;
  Waker* waker = nullptr;  // guarded by mutex; null: the strand may be gone

  void WakeFromAnywhere() {
    std::lock_guard lock(mutex);
    if (waker == nullptr) return;
    asio::post(waker->timer_.get_executor(), [self = shared_from_this()] {
      // On the strand, where alone the pointer changes.
      if (self->waker != nullptr) self->waker->Wake();
    });
  }
};

Waker::Waker(const asio::any_io_executor& strand)
    : timer_(strand), shared_(std::make_shared<Shared>()) {
  shared_->waker = this;
}

Waker::~Waker() {
  std::lock_guard lock(shared_->mutex);
  shared_->waker = nullptr;
}

asio::awaitable<bool> Waker::Wait(std::chrono::milliseconds time) {
  timer_.expires_after(time);
  boost::system::error_code error;
  co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
  co_return error == asio::error::operation_aborted;
}

std::function<void()> Waker::Handle() const {
  return [shared = shared_] { shared->WakeFromAnywhere(); };
}

}  // namespace expertmesh::gateway
