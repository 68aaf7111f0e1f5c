// expertmesh-attention-worker: lanes, attention, gate, head and sampler of a model.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "attention-worker/worker.h"
#include "services/lifecycle/process.h"
#include "services/rpc/deadlock_search.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::attention_worker {
namespace {

// Durations as the command line has them.
struct Times {
  int64_t wait_ms = 1000;
  int64_t timeout_ms = 10000;
  int64_t parked_s = 10;
  int64_t memory_wait_ms = 2000;
};

void AddStepFlags(CLI::App& app, WorkerOptions& options) {
  SchedulerOptions& steps = options.scheduler;
  app.add_option("--max-batch", steps.lanes_max, "Sequences in one step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--queue", steps.queue_max, "Requests that may wait")->capture_default_str();
  app.add_option("--step-tokens", steps.step_tokens, "Tokens in one step")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--prefill-chunk", steps.prefill_chunk,
                 "Prompt tokens of one sequence in one step")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--micro-batches", options.micro_batches,
                 "Parts of a step of which one is at the experts while another computes attention; "
                 "0: as measured")
      ->check(CLI::Range(0, 16))
      ->capture_default_str();
  app.add_option("--kv-pages", steps.pages_total,
                 "Pages of lane state, 64 tokens each; one sequence may fill them. 0 chooses, at "
                 "most 1 GiB");
}

void AddFlags(CLI::App& app, WorkerOptions& options, Times& times) {
  SchedulerOptions& steps = options.scheduler;
  app.add_option("--model", options.model_directory, "Hugging Face model directory")->required();
  app.add_option("--served-model-name", options.served_model_name, "Default: the directory's name");
  lifecycle::AddProfileFlag(app, options.profile);
  app.add_option("--transport", options.transport,
                 "auto (shm on the same host, else grpc), shm, grpc, or inproc for all experts in "
                 "this process")
      ->check(CLI::IsMember({"auto", "shm", "grpc", "inproc"}))
      ->capture_default_str();
  app.add_option("--listen", options.listen, "gRPC address; unix:/path allowed")
      ->capture_default_str();
  app.add_option("--router", options.routers, "Router addresses, comma-separated")->delimiter(',');
  lifecycle::AddThreadFlags(app, options.threads);
  AddStepFlags(app, options);
  app.add_flag("!--no-prefix-cache", options.prefix_cache,
               "Compute every prompt whole, also where an earlier one began alike");
  app.add_option("--parked-lane-s", times.parked_s,
                 "How long a parked sequence waits to be resumed or exported")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--expert-wait-ms", times.wait_ms, "How long rows wait for a lost expert pool")
      ->check(CLI::Range(0, 600000))
      ->capture_default_str();
  app.add_option("--expert-timeout-ms", times.timeout_ms, "How long one expert call may take")
      ->check(CLI::Range(1, 600000))
      ->capture_default_str();
  app.add_flag("--debug-api", options.debug_api, "Allow the debug block of inference.v1.Generate");
  app.add_option("--debug-preempt-every", steps.preempt_every,
                 "With --debug-api: recompute a sequence every N steps; 0 never");
  app.add_flag("--masked-gate-group-zero", options.masked_gate_group_zero,
               "Mask excluded gate groups with 0 as transformers does, instead of -inf");
  lifecycle::AddOverrideFlag(app, options.overrides);
  app.add_option(
         "--memory", options.memory,
         "Where the memory's tables are: store, local (the model directory), or auto, which "
         "is a store unless the transport is inproc")
      ->capture_default_str();
  app.add_option("--engram", options.engram,
                 "Engram stores, comma-separated; without it those that the router shows")
      ->delimiter(',');
  app.add_option("--engram-transport", options.engram_transport,
                 "auto (read the files of a store on the same host, else ask over gRPC) or grpc")
      ->check(CLI::IsMember({"auto", "grpc"}))
      ->capture_default_str();
  app.add_option("--memory-cache-rows", options.memory_limits.cache_rows,
                 "Rows of the memory kept in this process")
      ->check(CLI::Range(size_t{0}, size_t{1} << 32))
      ->capture_default_str();
  app.add_option("--memory-wait-ms", times.memory_wait_ms, "How long a step waits for a lost store")
      ->check(CLI::Range(0, 600000))
      ->capture_default_str();
}

}  // namespace
}  // namespace expertmesh::attention_worker

int main(int argc, char** argv) {
  using namespace expertmesh;
  rpc::TurnDeadlockSearchOff();
  CLI::App app("Runs the attention side of a model and serves inference.v1 (gRPC).");
  lifecycle::ProcessOptions process_options;
  process_options.role = "attention-worker";
  attention_worker::WorkerOptions options;
  attention_worker::Times times;
  lifecycle::AddProcessFlags(app, process_options);
  attention_worker::AddFlags(app, options, times);
  CLI11_PARSE(app, argc, argv);
  options.parked_lifetime = std::chrono::seconds(times.parked_s);
  options.memory_limits.wait_max = std::chrono::milliseconds(times.memory_wait_ms);
  options.limits.wait_max = std::chrono::milliseconds(times.wait_ms);
  options.limits.call_timeout = std::chrono::milliseconds(times.timeout_ms);

  telemetry::Metrics metrics("attention_worker");
  auto process = lifecycle::Process::Start(process_options, &metrics);
  if (!process.ok()) {
    std::cerr << "expertmesh-attention-worker: " << process.status().message() << "\n";
    return 1;
  }
  auto worker = attention_worker::Worker::Start(options, **process, metrics);
  if (!worker.ok()) {
    process->reset();  // its last log line, so that the error comes last
    std::cerr << "expertmesh-attention-worker: " << worker.status().message() << "\n";
    return 1;
  }
  (*process)->WaitForShutdown();
  (*worker)->Stop(std::chrono::seconds(process_options.drain_seconds));
  return 0;
}
