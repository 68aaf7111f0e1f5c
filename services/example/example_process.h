// What main.cc starts and stops: the service, its server, and their place in the process.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "services/example/example_service.h"
#include "services/lifecycle/process.h"
#include "services/rpc/server.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::example {

class ExampleProcess {
 public:
  /// Serves on `listen`, announces the address and says ready. `process` and `metrics` outlive it.
  static absl::StatusOr<std::unique_ptr<ExampleProcess>> Start(const std::string& listen,
                                                               lifecycle::Process& process,
                                                               telemetry::Metrics& metrics);
  const std::string& address() const { return server_->address(); }
  /// Running calls get `grace` to end. Idempotent.
  void Stop(std::chrono::milliseconds grace) { server_->Shutdown(grace); }

 private:
  ExampleProcess() = default;

  ExampleService service_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace expertmesh::example
