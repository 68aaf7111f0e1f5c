#include "services/http/client.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/beast/core.hpp"
#include "boost/beast/http.hpp"
#include "services/base/status.h"

namespace expertmesh::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr uint64_t kBodyBytesMax = uint64_t{64} << 20;
constexpr std::string_view kScheme = "http://";

absl::Status BadUrl(std::string_view text) {
  return base::Error(
      base::Reason::kInvalidArgument,
      absl::StrCat("URL ", std::string(text.substr(0, 100)), ": expected http://HOST:PORT"));
}

}  // namespace

absl::StatusOr<Url> ParseUrl(std::string_view text) {
  if (!text.starts_with(kScheme)) return BadUrl(text);
  std::string_view rest = text.substr(kScheme.size());
  Url url;
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos) {
    url.prefix = std::string(rest.substr(slash));
    while (url.prefix.ends_with('/')) url.prefix.pop_back();
    rest = rest.substr(0, slash);
  }
  const size_t bracket = rest.rfind(']');
  const size_t colon = rest.rfind(':');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    url.port = std::string(rest.substr(colon + 1));
    rest = rest.substr(0, colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  url.host = std::string(rest);
  uint32_t port = 0;
  if (url.host.empty() || !absl::SimpleAtoi(url.port, &port) || port == 0 || port > 65535) {
    return BadUrl(text);
  }
  // What would end a request line or a field.
  if (url.host.find_first_of(" \r\n\t@?#") != std::string::npos ||
      url.prefix.find_first_of(" \r\n\t?#") != std::string::npos) {
    return BadUrl(text);
  }
  return url;
}

struct Client::Impl {
  Url url;
  std::chrono::milliseconds timeout;
  asio::io_context io{1};
  std::optional<beast::tcp_stream> stream;
  beast::flat_buffer buffer;

  std::string address() const { return absl::StrCat(url.host, ":", url.port); }

  // Runs what was started until it is done; the stream's timer ends it in time.
  error_code Run(const error_code& result) {
    io.restart();
    io.run();
    return result;
  }

  error_code Connect() {
    error_code result;
    const auto found = tcp::resolver(io).resolve(url.host, url.port, result);
    if (result) return result;
    buffer.clear();
    stream.emplace(io);
    stream->expires_after(timeout);
    stream->async_connect(found, [&](error_code error, const auto&) { result = error; });
    return Run(result);
  }

  error_code Exchange(const bhttp::request<bhttp::string_body>& request, Response& out) {
    error_code result;
    stream->expires_after(timeout);
    bhttp::async_write(*stream, request, [&](error_code error, size_t) { result = error; });
    if (Run(result)) return result;
    bhttp::response_parser<bhttp::string_body> parser;
    parser.body_limit(kBodyBytesMax);
    bhttp::async_read(*stream, buffer, parser, [&](error_code error, size_t) { result = error; });
    if (Run(result)) return result;
    out.status = parser.get().result_int();
    if (!parser.get().keep_alive()) stream.reset();
    out.body = std::move(parser.get().body());
    return result;
  }

  absl::Status Failed(const error_code& error) {
    stream.reset();
    if (error == beast::error::timeout) {
      return base::Error(base::Reason::kDeadlineExceeded,
                         absl::StrCat(address(), ": no answer within ", timeout.count(), " ms"));
    }
    return base::Error(base::Reason::kPeerLost, absl::StrCat(address(), ": ", error.message()));
  }

  absl::StatusOr<Response> Ask(bhttp::verb verb, std::string_view path, std::string body) {
    bhttp::request<bhttp::string_body> request(verb, absl::StrCat(url.prefix, std::string(path)),
                                               11);
    request.set(bhttp::field::host, address());
    request.set(bhttp::field::user_agent, "expertmesh");
    if (verb == bhttp::verb::post) {
      request.set(bhttp::field::content_type, "application/json");
      request.body() = std::move(body);
    }
    request.prepare_payload();
    try {  // Beast allocates, and says so by throwing
      Response response;
      // A kept connection may have been closed meanwhile: then once more on a new one.
      const bool kept = stream.has_value();
      if (kept) {
        const error_code error = Exchange(request, response);
        if (!error) return response;
        if (error == beast::error::timeout) return Failed(error);
      }
      error_code error = Connect();
      if (!error) error = Exchange(request, response);
      if (error) return Failed(error);
      return response;
    } catch (const std::exception& thrown) {
      stream.reset();
      return base::Error(base::Reason::kPeerLost, absl::StrCat(address(), ": ", thrown.what()));
    }
  }
};

Client::Client(Url url, std::chrono::milliseconds timeout) : impl_(new Impl) {
  impl_->url = std::move(url);
  impl_->timeout = timeout;
}
Client::~Client() = default;

absl::StatusOr<Response> Client::Get(std::string_view path) {
  return impl_->Ask(bhttp::verb::get, path, "");
}

absl::StatusOr<Response> Client::PostJson(std::string_view path, std::string body) {
  return impl_->Ask(bhttp::verb::post, path, std::move(body));
}

}  // namespace expertmesh::http
