// An Engram store as a process: opens its tables, imports those of a model once, serves engram.v1,
// registers with the routers.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "engram-store/engram_service.h"
#include "engram-store/engram_tables.h"
#include "model/config_overrides.h"
#include "services/lifecycle/process.h"
#include "services/rpc/router_client.h"
#include "services/rpc/server.h"

namespace expertmesh::engram_store {

struct StoreOptions {
  std::string data_directory = {};          // made if it is missing
  std::string model_directory = {};         // whose tables are imported once; may be empty
  std::string served_model_name = {};       // empty: the directory's name
  std::vector<std::string> overrides = {};  // "key=value" of config.json; part of the revision
  std::string listen = "127.0.0.1:0";
  std::vector<std::string> routers = {};
  bool cold = false;
  size_t hot_rows = 1 << 20;
  std::vector<std::string> publishers = {};
};

/// Everything between flags and WaitForShutdown. `process` and `metrics` outlive it.
class EngramProcess {
 public:
  static absl::StatusOr<std::unique_ptr<EngramProcess>> Start(const StoreOptions& options,
                                                              lifecycle::Process& process,
                                                              telemetry::Metrics& metrics);
  ~EngramProcess();
  EngramProcess(const EngramProcess&) = delete;
  EngramProcess& operator=(const EngramProcess&) = delete;

  /// Leaves the mesh, then stops serving; calls in flight get `grace` to end. Idempotent.
  void Stop(std::chrono::milliseconds grace);
  const std::string& address() const { return server_->address(); }

 private:
  explicit EngramProcess(lifecycle::Process& process) : process_(process) {}
  absl::Status LoadModel(const StoreOptions& options, std::unique_ptr<TokenHasher>& hasher);
  absl::Status Import(const StoreOptions& options, telemetry::Metrics& metrics);
  void Register(const std::vector<std::string>& routers);
  std::string StatusJson() const;

  lifecycle::Process& process_;
  base::SteadyClock clock_;
  std::string data_directory_;
  std::string model_;
  std::string revision_;
  model::ConfigOverrides overrides_;
  std::string import_error_;  // why the tables of the model are not served
  std::unique_ptr<EngramTables> tables_;
  std::unique_ptr<EngramService> service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<rpc::RouterClient> router_;
};

}  // namespace expertmesh::engram_store
