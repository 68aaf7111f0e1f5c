#include "gateway/http_connection.h"

#include <netinet/tcp.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr size_t kReadBytes = 8 << 10;
constexpr size_t kLingerBytesMax = size_t{64} << 20;
constexpr int kProbeAfterS = 30;  // a client whose machine vanished is noticed by TCP's own probes
constexpr int kProbeEveryS = 10;
constexpr int kProbesMax = 3;

auto Redirect(error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

void SetSocketOptions(tcp::socket& socket) {
  error_code ignored;  // each is an improvement only
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const auto set = [&](int name, int value) {
    setsockopt(socket.native_handle(), IPPROTO_TCP, name, &value, sizeof(value));
  };
  set(TCP_KEEPIDLE, kProbeAfterS);
  set(TCP_KEEPINTVL, kProbeEveryS);
  set(TCP_KEEPCNT, kProbesMax);
}

}  // namespace

HttpConnection::HttpConnection(tcp::socket socket, const HttpLimits& limits)
    : limits_(limits),
      stream_(std::move(socket)),
      watch_ended_(stream_.get_executor(), asio::steady_timer::time_point::max()) {
  SetSocketOptions(stream_.socket());
}

asio::awaitable<bool> HttpConnection::WaitForBytes() {
  if (buffer_.size() > 0) co_return true;
  error_code error;
  idle_ = true;
  stream_.expires_after(limits_.idle);
  const size_t count =
      co_await stream_.async_read_some(buffer_.prepare(kReadBytes), Redirect(error));
  idle_ = false;
  buffer_.commit(count);
  co_return !error;
}

asio::awaitable<HttpConnection::Incoming> HttpConnection::Read() {
  if (!co_await WaitForBytes()) co_return Incoming();
  http::request_parser<http::string_body> parser;
  parser.header_limit(limits_.header_bytes_max);
  parser.body_limit(limits_.body_bytes_max);
  error_code error;
  stream_.expires_after(limits_.header);
  co_await http::async_read_header(stream_, buffer_, parser, Redirect(error));
  if (!error) {
    version_ = parser.get().version();
    keep_alive_ = parser.get().keep_alive();
    stream_.expires_after(limits_.body);
    const beast::string_view expect = parser.get()[http::field::expect];
    if (version_ >= 11 && absl::EqualsIgnoreCase({expect.data(), expect.size()}, "100-continue")) {
      const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await asio::async_write(stream_, asio::buffer(go_on), Redirect(error));
    }
  }
  if (!error) co_await http::async_read(stream_, buffer_, parser, Redirect(error));
  if (!error) co_return parser.release();
  // Errors of Beast's HTTP category are the client's bytes; the others are its connection.
  const bool bytes_are_bad =
      error.category() == make_error_code(http::error::bad_target).category();
  if (!bytes_are_bad || error == http::error::end_of_stream ||
      error == http::error::partial_message) {
    co_return Incoming();
  }
  keep_alive_ = false;
  co_return BadBytes(error);
}

ApiError HttpConnection::BadBytes(error_code error) const {
  if (error == http::error::header_limit) {
    return ClientError(
        431, "header_too_large",
        absl::StrCat("the request head is larger than ", limits_.header_bytes_max, " bytes"));
  }
  if (error == http::error::body_limit) {
    return ClientError(413, "request_too_large",
                       absl::StrCat("the body is larger than ", limits_.body_bytes_max, " bytes"));
  }
  return ClientError(400, "malformed_http",
                     absl::StrCat("this is no HTTP/1.1 request: ", error.message()));
}

asio::awaitable<void> HttpConnection::Reply(const HttpReply& reply, const std::string& request_id) {
  http::response<http::string_body> response(static_cast<http::status>(reply.status), version_);
  response.set(http::field::content_type, reply.content_type);
  response.set("x-request-id", request_id);
  if (reply.retry_after_s > 0) {
    response.set(http::field::retry_after, std::to_string(reply.retry_after_s));
  }
  if (!reply.allow.empty()) response.set(http::field::allow, reply.allow);
  response.keep_alive(keep_alive_);
  response.content_length(reply.body.size());
  if (!reply.head_only) response.body() = reply.body;
  error_code error;
  stream_.expires_after(limits_.write);
  co_await http::async_write(stream_, response, Redirect(error));
  broken_ = broken_ || error;
}

asio::awaitable<void> HttpConnection::BeginStream(const std::string& request_id) {
  chunked_ = version_ >= 11;
  keep_alive_ = keep_alive_ && chunked_;
  http::response<http::empty_body> response(http::status::ok, version_);
  response.set(http::field::content_type, "text/event-stream; charset=utf-8");
  response.set(http::field::cache_control, "no-cache");
  response.set("x-accel-buffering", "no");  // proxies must not collect events
  response.set("x-request-id", request_id);
  response.keep_alive(keep_alive_);
  if (chunked_) response.chunked(true);
  http::response_serializer<http::empty_body> serializer(response);
  error_code error;
  stream_.expires_after(limits_.write);
  co_await http::async_write_header(stream_, serializer, Redirect(error));
  broken_ = broken_ || error;
}

asio::awaitable<void> HttpConnection::Send(const std::string& piece) {
  if (broken_ || piece.empty()) co_return;  // an empty chunk would end the body
  error_code error;
  stream_.expires_after(limits_.write);
  if (chunked_) {
    co_await asio::async_write(stream_, http::make_chunk(asio::buffer(piece)), Redirect(error));
  } else {
    co_await asio::async_write(stream_, asio::buffer(piece), Redirect(error));
  }
  broken_ = broken_ || error;
}

asio::awaitable<void> HttpConnection::EndStream() {
  if (broken_ || !chunked_) co_return;
  error_code error;
  stream_.expires_after(limits_.write);
  co_await asio::async_write(stream_, http::make_chunk_last(), Redirect(error));
  broken_ = broken_ || error;
}

void HttpConnection::BeginWatch(std::function<void()> on_hang_up) {
  on_hang_up_ = std::move(on_hang_up);
  watch_wanted_ = true;
  watching_ = true;
  stream_.expires_never();
  asio::co_spawn(
      stream_.get_executor(), [self = shared_from_this()] { return self->Watch(); },
      asio::detached);
}

// A read is always out, so that the end of the connection is seen at once. What a client sends
// ahead is kept for the next Read.
asio::awaitable<void> HttpConnection::Watch() {
  const auto self = shared_from_this();
  while (watch_wanted_ && buffer_.size() < limits_.ahead_bytes_max) {
    error_code error;
    const size_t count =
        co_await stream_.socket().async_read_some(buffer_.prepare(kReadBytes), Redirect(error));
    buffer_.commit(count);
    if (!error) continue;
    if (error != asio::error::operation_aborted) {
      hung_up_ = true;
      if (on_hang_up_) on_hang_up_();
    }
    break;
  }
  watching_ = false;
  on_hang_up_ = nullptr;
  watch_ended_.cancel();
}

asio::awaitable<void> HttpConnection::EndWatch() {
  watch_wanted_ = false;
  on_hang_up_ = nullptr;
  if (!watching_) co_return;
  error_code ignored;
  stream_.socket().cancel(ignored);
  while (watching_) co_await watch_ended_.async_wait(Redirect(ignored));
}

asio::awaitable<void> HttpConnection::Linger() {
  error_code error;
  stream_.socket().shutdown(tcp::socket::shutdown_send, error);
  stream_.expires_after(limits_.linger);
  std::string dropped(kReadBytes, '\0');
  for (size_t total = 0; !error && total < kLingerBytesMax;) {
    total += co_await stream_.async_read_some(asio::buffer(dropped), Redirect(error));
  }
}

void HttpConnection::CloseIfIdle() {
  if (idle_) stream_.cancel();
}

void HttpConnection::Close() { stream_.close(); }

}  // namespace expertmesh::gateway
