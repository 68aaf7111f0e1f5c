// A gRPC server as every process has one: health, reflection, the interceptors, message limits and
// keep-alive of the mesh.
#pragma once

#include <grpcpp/server.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::rpc {

class Server {
 public:
  struct Options {
    std::string listen = "127.0.0.1:0";     // "host:port", port 0 = any free one; or "unix:/path"
    telemetry::Metrics* metrics = nullptr;  // not owned; null = not counted
  };
  /// `services` outlive the server. kInvalidArgument if the address cannot be used.
  static absl::StatusOr<std::unique_ptr<Server>> Start(Options options,
                                                       std::vector<grpc::Service*> services);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// What peers dial: the port is the real one.
  const std::string& address() const { return address_; }
  /// grpc.health.v1: "" and "readiness"; "liveness" is always SERVING. Starts as not serving.
  void SetServing(bool serving);
  /// Takes no new calls, lets running ones go on for `grace`, then cancels them. Idempotent.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  Server() = default;

  std::string address_;
  std::string unix_path_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace expertmesh::rpc
