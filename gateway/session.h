// One client: takes request after request from its connection and answers them by their door.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gateway/api.h"
#include "gateway/core/http_target.h"
#include "gateway/http_connection.h"

namespace expertmesh::gateway {

class Completion;

/// All methods on the connection's strand.
class Session : public std::enable_shared_from_this<Session> {
 public:
  /// `api` outlives the session. `workers` runs what takes long.
  Session(std::shared_ptr<HttpConnection> connection, const Api& api,
          boost::asio::any_io_executor workers)
      : connection_(std::move(connection)), api_(api), workers_(std::move(workers)) {}

  /// Serves requests until the connection ends.
  boost::asio::awaitable<void> Run();

  /// No request after the one in work, if there is one.
  void Drain();
  /// Ends the request in work with `why`, then the session.
  void Abort(const absl::Status& why);
  void Close() { connection_->Close(); }

 private:
  using Request = HttpConnection::Request;
  template <class T>
  using Await = boost::asio::awaitable<T>;

  Await<void> Answer(const Request& request);
  Await<void> Complete(Door door, const Request& request);
  HttpReply Page(const HttpTarget& target) const;
  /// Counts the answer and writes its line of the log.
  void Note(const char* endpoint, int status, const std::string& reason);
  Await<void> Refuse(const char* endpoint, const ApiError& error, const std::string& allow = {});

  const std::shared_ptr<HttpConnection> connection_;
  const Api& api_;
  const boost::asio::any_io_executor workers_;
  std::string request_id_;
  std::chrono::steady_clock::time_point begun_;  // of the request in work
  Completion* running_ = nullptr;
  bool draining_ = false;
};

}  // namespace expertmesh::gateway
