// One HTTP/1.x connection on its strand: requests in, whole answers or chunked streams out, and the
// news that the client hung up. Knows nothing of what is asked.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "gateway/core/api_error.h"

namespace expertmesh::gateway {

struct HttpLimits {
  size_t body_bytes_max = size_t{8} << 20;
  uint32_t header_bytes_max = 64 << 10;
  size_t ahead_bytes_max = 64 << 10;             // kept of what comes behind a request
  std::chrono::milliseconds idle{75'000};        // between requests
  std::chrono::milliseconds header{15'000};      // for a whole request head
  std::chrono::milliseconds body{60'000};        // for a whole request body
  std::chrono::milliseconds write{60'000};       // for one write: a client that does not read
  std::chrono::milliseconds keep_alive{10'000};  // silence in a stream before a comment
  std::chrono::milliseconds linger{2'000};       // reading on after a refusal
};

struct HttpReply {
  int status = 200;
  std::string body = {};
  std::string content_type = "application/json";
  std::string allow = {};  // the Allow header, with 405
  int retry_after_s = 0;   // > 0: a Retry-After header
  bool head_only = false;  // HEAD: the header of what GET would bring
};

/// All methods on the connection's strand. Kept alive by shared_ptr while operations run.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  template <class T>
  using Await = boost::asio::awaitable<T>;

  /// The socket's executor is the strand. `limits` outlives the connection.
  HttpConnection(boost::asio::ip::tcp::socket socket, const HttpLimits& limits);

  /// The next request; an error for bytes that are none, to be answered before closing; or nothing
  /// when the client left, was too slow, or CloseIfIdle came.
  using Incoming = std::variant<std::monostate, Request, ApiError>;
  Await<Incoming> Read();

  /// Every answer carries `request_id`. Sets broken() where the client cannot be reached.
  Await<void> Reply(const HttpReply& reply, const std::string& request_id);
  /// A text/event-stream: Begin, then pieces, then End. Chunked unless the client speaks HTTP/1.0.
  Await<void> BeginStream(const std::string& request_id);
  Await<void> Send(const std::string& piece);
  Await<void> EndStream();

  /// From now on hung_up() turns true when the client closes its side, also its sending side alone;
  /// `on_hang_up` then runs on the strand. No Read before EndWatch.
  void BeginWatch(std::function<void()> on_hang_up);
  Await<void> EndWatch();

  /// Reads and drops what still comes, for a while, so that a client which is still sending gets to
  /// read its answer; then closes the sending side.
  Await<void> Linger();
  /// Ends Read if no byte of a request has come yet.
  void CloseIfIdle();
  /// Ends everything at once.
  void Close();

  /// Of the request in work, and of the answer: false closes after it.
  bool keep_alive() const { return keep_alive_; }
  void set_keep_alive(bool keep_alive) { keep_alive_ = keep_alive_ && keep_alive; }
  bool hung_up() const { return hung_up_; }
  bool broken() const { return broken_; }
  boost::asio::any_io_executor executor() { return stream_.get_executor(); }
  const HttpLimits& limits() const { return limits_; }

 private:
  Await<bool> WaitForBytes();
  Await<void> Watch();
  ApiError BadBytes(boost::system::error_code error) const;

  const HttpLimits& limits_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  boost::asio::steady_timer watch_ended_;  // never expires; cancelled when Watch ends
  std::function<void()> on_hang_up_;
  unsigned version_ = 11;
  bool keep_alive_ = true;
  bool chunked_ = true;
  bool idle_ = false;
  bool watch_wanted_ = false;
  bool watching_ = false;  // Watch runs
  bool hung_up_ = false;
  bool broken_ = false;  // nothing more can be written
};

}  // namespace expertmesh::gateway
