// expertmesh-router: membership, placement and epochs of a mesh; never on the token path.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "router/router_process.h"

int main(int argc, char** argv) {
  using namespace expertmesh;
  CLI::App app("Knows who is alive and which pool hosts which experts (router.v1 over gRPC).");
  lifecycle::ProcessOptions process_options;
  process_options.role = "router";
  std::string listen = "127.0.0.1:0";
  lifecycle::AddProcessFlags(app, process_options);
  app.add_option("--listen", listen, "gRPC address; unix:/path allowed")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  telemetry::Metrics metrics("router");
  auto process = lifecycle::Process::Start(process_options, &metrics);
  if (!process.ok()) {
    std::cerr << "expertmesh-router: " << process.status().message() << "\n";
    return 1;
  }
  auto router = router::RouterProcess::Start(listen, **process, metrics);
  if (!router.ok()) {
    process->reset();  // its last log line, so that the error comes last
    std::cerr << "expertmesh-router: " << router.status().message() << "\n";
    return 1;
  }
  (*process)->WaitForShutdown();
  // Register streams never end by themselves: there is nothing to wait for.
  (*router)->Stop(std::chrono::milliseconds(0));
  return 0;
}
