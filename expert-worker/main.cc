// expertmesh-expert-worker: one slice of the routed experts, served over gRPC.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "expert-worker/worker.h"
#include "services/lifecycle/process.h"
#include "services/rpc/deadlock_search.h"
#include "services/telemetry/metrics.h"

int main(int argc, char** argv) {
  using namespace expertmesh;
  rpc::TurnDeadlockSearchOff();
  CLI::App app("Serves a slice of the routed experts of a model over expert.v1 (gRPC).");
  lifecycle::ProcessOptions process_options;
  process_options.role = "expert-worker";
  expert_worker::WorkerOptions options;
  lifecycle::AddProcessFlags(app, process_options);
  app.add_option("--model", options.model_directory, "Hugging Face model directory")->required();
  app.add_option("--served-model-name", options.served_model_name, "Default: the directory's name");
  lifecycle::AddProfileFlag(app, options.profile);
  app.add_option("--slice", options.slice, "Experts hosted, e.g. 0-15 or 0-3,8-11; default: all");
  app.add_option("--listen", options.listen, "gRPC address; unix:/path allowed")
      ->capture_default_str();
  app.add_option("--listen-frames", options.listen_frames,
                 "gRPC address of dispatch frames; default: beside --listen, a socket PATH.frames "
                 "or a free port");
  app.add_option("--transport", options.transport,
                 "auto or shm: shared memory for attention workers on this host; grpc: none")
      ->check(CLI::IsMember({"auto", "shm", "grpc"}))
      ->capture_default_str();
  app.add_option("--router", options.routers, "Router addresses, comma-separated")->delimiter(',');
  lifecycle::AddThreadFlags(app, options.threads);
  app.add_flag("--masked-gate-group-zero", options.masked_gate_group_zero,
               "As on the attention workers: part of the model's revision");
  lifecycle::AddOverrideFlag(app, options.overrides);
  CLI11_PARSE(app, argc, argv);

  telemetry::Metrics metrics("expert_worker");
  auto process = lifecycle::Process::Start(process_options, &metrics);
  if (!process.ok()) {
    std::cerr << app.get_name() << ": " << process.status().message() << "\n";
    return 1;
  }
  auto worker = expert_worker::Worker::Start(options, **process, metrics);
  if (!worker.ok()) {
    process->reset();  // its last log line, so that the error comes last
    std::cerr << "expertmesh-expert-worker: " << worker.status().message() << "\n";
    return 1;
  }
  (*process)->WaitForShutdown();
  (*worker)->Stop(std::chrono::seconds(process_options.drain_seconds));
  return 0;
}
