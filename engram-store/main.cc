// expertmesh-engram-store: a shard of the n-gram tables, served over gRPC.
#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
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
  app.add_option("--data", options.data_directory, "Directory of all that is kept; made if missing")
      ->required();
  app.add_option("--model", options.model_directory,
                 "Model directory; its tables are imported once, and not needed after");
  app.add_option("--served-model-name", options.served_model_name, "Default: the directory's name");
  lifecycle::AddOverrideFlag(app, options.overrides);
  app.add_option("--listen", options.listen, "gRPC address; unix:/path allowed")
      ->capture_default_str();
  app.add_option("--router", options.routers, "Router addresses, comma-separated")->delimiter(',');
  app.add_flag("--cold", options.cold,
               "Serve rows from the record, for tables larger than memory; keeps no segments");
  app.add_option("--hot-rows", options.hot_rows, "Rows kept in memory in cold mode")
      ->check(CLI::Range(size_t{0}, size_t{1} << 32))
      ->capture_default_str();
  app.add_option("--publishers", options.publishers,
                 "Principals that may update, publish, roll back and prune; default: everybody")
      ->delimiter(',');
  app.footer(
      "Examples:\n"
      "  expertmesh-engram-store --model build/models/tiny --data /tmp/engram --listen "
      "127.0.0.1:7300\n"
      "  expertmesh-engram-store --data /data/engram --cold --hot-rows 4000000\n"
      "More: docs/engram-store.md");
  CLI11_PARSE(app, argc, argv);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is a full disk, not an end

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
