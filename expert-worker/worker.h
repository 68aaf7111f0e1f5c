// An expert worker as a process: loads its slice, serves Dispatch, registers with the routers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "expert-worker/expert_engine.h"
#include "services/lifecycle/process.h"
#include "services/rpc/router_client.h"
#include "services/rpc/server.h"
#include "services/transport/expert_server.h"
#include "services/transport/frame_door.h"

namespace expertmesh::expert_worker {

struct WorkerOptions {
  std::string model_directory;
  std::string served_model_name;  // empty: the directory's name
  std::string profile = "bf16";
  std::string slice;  // "0-15"; empty: every expert
  std::string listen = "127.0.0.1:0";
  std::string listen_frames;       // of dispatch frames; empty: beside `listen`
  std::string transport = "auto";  // "auto", "shm": rings for callers on this host; "grpc": none
  std::vector<std::string> routers;
  base::ComputeThreads threads;
  bool masked_gate_group_zero = false;  // as the attention workers: part of the revision
  std::vector<std::string> overrides;   // "key=value" of config.json; likewise
};

/// Everything between flags and WaitForShutdown. Destroyed after the process has drained.
class Worker {
 public:
  static absl::StatusOr<std::unique_ptr<Worker>> Start(const WorkerOptions& options,
                                                       lifecycle::Process& process,
                                                       telemetry::Metrics& metrics);
  ~Worker();
  /// Stops serving; calls in flight get `grace` to end.
  void Stop(std::chrono::milliseconds grace);
  const ExpertEngine& engine() const { return *engine_; }

 private:
  explicit Worker(lifecycle::Process& process) : process_(process) {}
  absl::Status StartFrames(const WorkerOptions& options, telemetry::Metrics& metrics);
  absl::Status StartRings(const WorkerOptions& options, telemetry::Metrics& metrics);
  void Register(const WorkerOptions& options);

  lifecycle::Process& process_;
  base::SteadyClock clock_;
  std::unique_ptr<ExpertEngine> engine_;
  std::unique_ptr<transport::ShmServer> rings_;  // null: none are served
  std::unique_ptr<transport::FrameDoor> frames_;
  std::unique_ptr<transport::ExpertServer> service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<rpc::RouterClient> router_;
};

}  // namespace expertmesh::expert_worker
