// The router as a process: service, metrics, what /statusz shows.
#pragma once

#include <chrono>
#include <memory>
#include <set>
#include <string>

#include "router/router_service.h"
#include "services/lifecycle/process.h"
#include "services/rpc/server.h"

namespace expertmesh::router {

class RouterProcess {
 public:
  static absl::StatusOr<std::unique_ptr<RouterProcess>> Start(const std::string& listen,
                                                              lifecycle::Process& process,
                                                              telemetry::Metrics& metrics);
  ~RouterProcess();
  void Stop(std::chrono::milliseconds grace);

 private:
  RouterProcess(lifecycle::Process& process, telemetry::Metrics& metrics)
      : process_(process), metrics_(metrics) {}
  void Show(const v1::View& view, const std::vector<Departure>& departed);

  lifecycle::Process& process_;
  telemetry::Metrics& metrics_;
  base::SteadyClock clock_;
  std::unique_ptr<RouterService> service_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace expertmesh::router
