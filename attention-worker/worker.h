// An attention worker as a process: loads the model, runs the engine, serves, registers with the
// routers.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "attention-worker/attention_engine.h"
#include "attention-worker/attention_service.h"
#include "attention-worker/constraint_compiler.h"
#include "attention-worker/inproc_experts.h"
#include "attention-worker/lane_service.h"
#include "attention-worker/router_link.h"
#include "services/lifecycle/process.h"
#include "services/rpc/router_client.h"
#include "services/rpc/server.h"

namespace expertmesh::attention_worker {

struct WorkerOptions {
  std::string model_directory;
  std::string served_model_name;  // empty: the directory's name
  std::string profile = "bf16";
  /// How expert workers are reached: "auto" is shm on the same host where it can be agreed, else
  /// grpc; "shm" or "grpc" alone; "inproc": all experts in this process.
  std::string transport = "auto";
  std::string listen = "127.0.0.1:0";
  std::vector<std::string> routers;
  base::ComputeThreads threads;
  size_t micro_batches = 0;    // of a step; 0: as measured
  SchedulerOptions scheduler;  // pages_total 0: enough for lanes_max sequences, at most 1 GiB
  DispatchLimits limits;
  bool prefix_cache = true;
  base::Micros parked_lifetime = std::chrono::seconds(10);
  bool debug_api = false;
  bool masked_gate_group_zero = false;
  std::vector<std::string> overrides;  // "key=value" of config.json; part of the revision
  /// Where rows of the memory come from: "store" an Engram store, "local" the tables in the model
  /// directory; "auto" is a store unless the transport is inproc and engram names none.
  std::string memory = "auto";
  std::vector<std::string> engram;  // addresses of stores; empty: those that the router shows
  /// "auto": the files of a store on this host are mapped, others are asked over gRPC; "grpc" asks
  /// all.
  std::string engram_transport = "auto";
  EngramClient::Options memory_limits;
};

/// Everything between flags and WaitForShutdown.
class Worker {
 public:
  static absl::StatusOr<std::unique_ptr<Worker>> Start(WorkerOptions options,
                                                       lifecycle::Process& process,
                                                       telemetry::Metrics& metrics);
  ~Worker();
  /// Lets lanes finish for up to `grace`, then ends them.
  void Stop(std::chrono::milliseconds grace);

 private:
  Worker(WorkerOptions options, lifecycle::Process& process, telemetry::Metrics& metrics)
      : options_(std::move(options)), process_(process), metrics_(metrics) {}
  absl::Status LoadModel();
  absl::StatusOr<bool> ReadsStore() const;
  absl::Status StartExperts();
  absl::Status StartTransport();
  absl::Status StartInproc();
  void StartMemory();
  absl::Status StartEngine();
  absl::Status Serve();
  void Register();
  void ReportLoop();
  router::v1::Report MakeReport() const;
  std::string StatusJson() const;
  std::string MemoryJson() const;

  WorkerOptions options_;
  lifecycle::Process& process_;
  telemetry::Metrics& metrics_;
  base::SteadyClock clock_;
  WorkerIdentity identity_;
  model::ConfigOverrides overrides_;
  std::unique_ptr<ConstraintCompiler> constraints_;
  std::unique_ptr<model::AttentionModel> model_;
  std::unique_ptr<ExpertDispatcher> experts_;
  std::unique_ptr<EngramStores> stores_;  // of a model whose memory is in a store
  std::unique_ptr<EngramClient> memory_;  // likewise
  std::unique_ptr<RouterLink> link_;
  std::unique_ptr<InprocExperts> inproc_;
  std::unique_ptr<AttentionEngine> engine_;
  std::unique_ptr<transport::Transport> transport_;  // destroyed before what its callbacks use
  std::unique_ptr<GenerateService> generate_;
  std::unique_ptr<LaneService> lanes_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<rpc::RouterClient> router_;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;  // guarded by mutex_
  std::thread reporter_;
};

}  // namespace expertmesh::attention_worker
