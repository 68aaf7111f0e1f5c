// A gRPC server as every process has one: health, reflection, the interceptors, message limits and
// keep-alive of the mesh.
#pragma once

#include <grpcpp/server.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::rpc {

/// Thread-safe. Handlers run on gRPC's threads.
class Server {
 public:
  struct Options {
    std::string listen = "127.0.0.1:0";     // "host:port", port 0 = any free one; or "unix:/path"
    telemetry::Metrics* metrics = nullptr;  // not owned; null = not counted
  };
  /// `services` and metrics outlive the server. kInvalidArgument if the address cannot be used: a
  /// taken port, a socket that another process listens on, a path of more than 107 bytes.
  static absl::StatusOr<std::unique_ptr<Server>> Start(Options options,
                                                       std::vector<grpc::Service*> services);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// What peers dial: the port is the real one.
  const std::string& address() const { return address_; }
  /// grpc.health.v1: "" and "readiness"; "liveness" is SERVING from the start. Starts as not
  /// serving.
  void SetServing(bool serving);
  /// Takes no new calls, lets running ones go on for `grace`, then cancels them and waits for their
  /// handlers. Open streams use up the grace: end them first, or give none. Idempotent.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  explicit Server(std::string address) : address_(std::move(address)) {}

  std::string address_;
  std::mutex mutex_;
  std::shared_ptr<grpc::Server> server_;  // guarded by mutex_; null after Shutdown
};

}  // namespace expertmesh::rpc
