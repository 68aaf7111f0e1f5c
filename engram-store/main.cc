// expertmesh-engram-store: a shard of the n-gram tables, served over gRPC.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "engram-store/engram_process.h"
#include "services/lifecycle/process.h"
#include "services/telemetry/metrics.h"

int main(int argc, char** argv) {
  using namespace expertmesh;
  CLI::App app("Serves rows of n-gram tables over engram.v1 (gRPC).");
  lifecycle::ProcessOptions process_options;
  process_options.role = "engram-store";
  engram_store::StoreOptions options;
  lifecycle::AddProcessFlags(app, process_options);
  app.add_option("--data", options.data_directory, "Database directory; made if missing")
      ->required();
  app.add_option("--model", options.model_directory,
                 "Model directory, for the name and revision shown to the router");
  app.add_option("--served-model-name", options.served_model_name, "Default: the directory's name");
  app.add_option("--listen", options.listen, "gRPC address; unix:/path allowed")
      ->capture_default_str();
  app.add_option("--router", options.routers, "Router addresses, comma-separated")->delimiter(',');
  CLI11_PARSE(app, argc, argv);

  telemetry::Metrics metrics("engram_store");
  auto process = lifecycle::Process::Start(process_options, &metrics);
  if (!process.ok()) {
    std::cerr << "expertmesh-engram-store: " << process.status().message() << "\n";
    return 1;
  }
  auto store = engram_store::EngramProcess::Start(options, **process, metrics);
  if (!store.ok()) {
    process->reset();  // its last log line, so that the error comes last
    std::cerr << "expertmesh-engram-store: " << store.status().message() << "\n";
    return 1;
  }
  (*process)->WaitForShutdown();
  (*store)->Stop(std::chrono::seconds(process_options.drain_seconds));
  return 0;
}
