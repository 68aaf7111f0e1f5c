// A small blocking HTTP/1.1 client for JSON APIs: what the command line asks a gateway with.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace expertmesh::http {

/// Where an API is: http://HOST[:PORT][/PREFIX].
struct Url {
  std::string host = {};
  std::string port = "80";
  std::string prefix = {};  // "" or "/v1": without a slash at its end
};

/// kInvalidArgument for anything but http, or without a host.
absl::StatusOr<Url> ParseUrl(std::string_view text);

struct Response {
  unsigned status = 0;
  std::string body = {};
};

/// One connection, kept between requests and made again when the server has closed it. Used by one
/// thread at a time; several clients are several connections.
class Client {
 public:
  /// `timeout` is for one whole request and its answer.
  Client(Url url, std::chrono::milliseconds timeout);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// `path` begins with a slash and comes behind the URL's prefix. Any status of the server is a
  /// Response. Errors: kPeerLost naming the address where nobody answers or the connection breaks,
  /// kDeadlineExceeded after the timeout.
  absl::StatusOr<Response> Get(std::string_view path);
  absl::StatusOr<Response> PostJson(std::string_view path, std::string body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::http
