// expertmesh-example: the template for a new process, kept green.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "services/example/example_process.h"

int main(int argc, char** argv) {
  using namespace expertmesh;
  CLI::App app("Counts words (example.v1 over gRPC).");
  lifecycle::ProcessOptions options{.role = "example"};
  std::string listen = "127.0.0.1:0";
  lifecycle::AddProcessFlags(app, options);
  app.add_option("--listen", listen, "gRPC address; unix:/path allowed")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  telemetry::Metrics metrics(options.role);
  auto process = lifecycle::Process::Start(options, &metrics);
  if (!process.ok()) {
    std::cerr << "expertmesh-example: " << process.status().message() << "\n";
    return 1;
  }
  auto example = example::ExampleProcess::Start(listen, **process, metrics);
  if (!example.ok()) {
    std::cerr << "expertmesh-example: " << example.status().message() << "\n";
    return 1;
  }
  (*process)->WaitForShutdown();
  (*example)->Stop(std::chrono::seconds(options.drain_seconds));
  return 0;
}
