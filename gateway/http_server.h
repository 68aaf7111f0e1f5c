// HTTP/1.1 on a few threads: accepts connections, bounds them, gives each to a Session.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "gateway/api.h"

namespace expertmesh::gateway {

class HttpServer {
 public:
  struct Options {
    std::string listen = "127.0.0.1:8080";  // port 0 = any free one
    int threads = 2;
    int connections_max = 1024;
  };
  /// `api` outlives the server. kInvalidArgument if the address is taken or malformed.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options, const Api& api);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  const std::string& address() const { return address_; }
  /// Accepts no more, lets answers in flight end for up to `grace`, then closes all. Idempotent.
  void Stop(std::chrono::milliseconds grace);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  std::string address_;
};

}  // namespace expertmesh::gateway
