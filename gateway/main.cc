// expertmesh-gateway: the OpenAI-compatible HTTP door of a mesh, and inference.v1 over gRPC.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "gateway/gateway_process.h"

namespace {

int Fail(const absl::Status& status) {
  std::cerr << "expertmesh-gateway: " << status.message() << "\n";
  return 1;
}

void AddFlags(CLI::App& app, expertmesh::gateway::GatewayOptions& options, size_t& body_mb_max) {
  app.add_option("--model", options.model_directory, "Model directory: config.json, tokenizer.json")
      ->required();
  app.add_option("--served-model-name", options.served_model_name, "Default: the directory's name");
  expertmesh::lifecycle::AddOverrideFlag(app, options.overrides);
  app.add_option("--chat-encoding", options.chat_encoding, "auto, v3, r1, v3.1, v3.2 or v4")
      ->capture_default_str();
  app.add_flag("!--no-generation-config", options.generation_config,
               "Sample with temperature 1 where a request says nothing, whatever the model's "
               "generation_config.json says");
  app.add_option("--http", options.http.listen, "HTTP HOST:PORT; port 0 takes any free one")
      ->capture_default_str();
  app.add_option("--http-threads", options.http.threads, "Threads for HTTP, and for tokenizing")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--connections", options.http.connections_max, "HTTP connections at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--max-body-mb", body_mb_max, "Largest HTTP request body, in MiB")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--request-timeout-s", options.request_timeout_s, "Longest answer, in seconds")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--listen", options.listen, "gRPC HOST:PORT or unix:/path")->capture_default_str();
  app.add_option("--router", options.routers, "Router addresses, comma-separated")
      ->delimiter(',')
      ->required();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace expertmesh;
  CLI::App app("Serves the OpenAI HTTP API and inference.v1 (gRPC) for a mesh.");
  lifecycle::ProcessOptions process_options;
  process_options.role = "gateway";
  gateway::GatewayOptions options;
  size_t body_mb_max = options.http.limits.body_bytes_max >> 20;
  lifecycle::AddProcessFlags(app, process_options);
  AddFlags(app, options, body_mb_max);
  CLI11_PARSE(app, argc, argv);
  options.http.limits.body_bytes_max = body_mb_max << 20;

  telemetry::Metrics metrics("gateway");
  auto process = lifecycle::Process::Start(process_options, &metrics);
  if (!process.ok()) return Fail(process.status());
  auto gateway = gateway::GatewayProcess::Start(options, **process, metrics);
  if (!gateway.ok()) {
    process->reset();  // its last log line, so that the error comes last
    return Fail(gateway.status());
  }
  (*process)->WaitForShutdown();
  (*gateway)->Stop(std::chrono::seconds(process_options.drain_seconds));
  return 0;
}
