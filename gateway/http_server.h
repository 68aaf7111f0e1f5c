// HTTP/1.1 on a few threads: accepts connections, bounds them, gives each to a Session on a strand
// of its own, and ends them in order.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gateway/api.h"
#include "gateway/http_connection.h"

namespace expertmesh::gateway {

class HttpServer {
 public:
  struct Options {
    std::string listen = "127.0.0.1:8080";  // HOST:PORT, [::1]:PORT; port 0: any free one
    int threads = 2;                        // of sockets, and as many that parse and tokenize
    int connections_max = 1024;             // one more gets 503 and is closed
    HttpLimits limits = {};
  };
  /// `api` outlives the server. kInvalidArgument if the address is taken or malformed.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options, const Api& api);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// HOST:PORT with the port that was taken.
  const std::string& address() const { return address_; }
  /// Accepts no more, closes what is idle, lets answers in flight end for up to `grace`, then ends
  /// them with kDraining. Returns when every connection is closed. Idempotent; one caller.
  void Stop(std::chrono::milliseconds grace);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  std::string address_;
};

}  // namespace expertmesh::gateway
