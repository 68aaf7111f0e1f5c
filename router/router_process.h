// The router as a process: the service, its metrics, what /statusz shows.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "router/router_service.h"
#include "services/lifecycle/process.h"
#include "services/rpc/server.h"

namespace expertmesh::router {

/// Everything between flags and WaitForShutdown. `process` and `metrics` outlive it.
class RouterProcess {
 public:
  /// Serves, announces and is ready at once: a router needs nobody else.
  static absl::StatusOr<std::unique_ptr<RouterProcess>> Start(const std::string& listen,
                                                              lifecycle::Process& process,
                                                              telemetry::Metrics& metrics);
  ~RouterProcess();
  RouterProcess(const RouterProcess&) = delete;
  RouterProcess& operator=(const RouterProcess&) = delete;

  /// Ends the streams; unary calls in flight get `grace` to end. Idempotent.
  void Stop(std::chrono::milliseconds grace);
  const std::string& address() const { return server_->address(); }

 private:
  RouterProcess(lifecycle::Process& process, telemetry::Metrics& metrics)
      : process_(process), metrics_(metrics) {}
  void Show(const RouterService::Change& change);
  void ShowMembers(const v1::View& view);
  std::string ViewJson() const;
  std::string LeftOutJson() const;

  lifecycle::Process& process_;
  telemetry::Metrics& metrics_;
  base::SteadyClock clock_;
  mutable std::mutex mutex_;
  v1::View view_;                  // guarded by mutex_; as of the last change
  std::vector<LeftOut> left_out_;  // guarded by mutex_
  std::unique_ptr<RouterService> service_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace expertmesh::router
