// The plain HTTP server of the admin port: GET and HEAD of a handful of pages for probes,
// Prometheus and people. One thread, bounded connections, bounded requests, idle connections are
// closed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace expertmesh::lifecycle {

struct AdminReply {
  unsigned status = 200;  // HTTP status
  std::string content_type = "text/plain; charset=utf-8";
  std::string body = {};
};

class AdminServer {
 public:
  struct Limits {
    int connections_max = 64;              // one more is closed at once
    std::chrono::milliseconds idle{5000};  // for a whole request, and for a whole answer
    uint32_t header_bytes_max = 8192;
    uint64_t body_bytes_max = 4096;  // of requests; read and ignored
  };
  /// Both run on the admin thread.
  struct Callbacks {
    std::function<AdminReply(std::string_view path)> page;  // path without its query
    std::function<void()> bad_request;                      // bytes that are no HTTP request
  };

  /// `listen` is HOST:PORT, port 0 for any free one. Errors: kInvalidArgument.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(const std::string& listen,
                                                            Callbacks callbacks, Limits limits);
  /// Closes everything and joins the thread.
  ~AdminServer();

  /// "127.0.0.1:41234".
  std::string address() const;

 private:
  struct Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::lifecycle
