// expertmesh-gateway: the OpenAI-compatible HTTP door of a mesh, and inference.v1 over gRPC.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "gateway/gateway_process.h"

int main(int argc, char** argv) {
  using namespace expertmesh;
  CLI::App app("Serves the OpenAI HTTP API and inference.v1 (gRPC) for a mesh.");
  lifecycle::ProcessOptions process_options;
  process_options.role = "gateway";
  gateway::GatewayOptions options;
  lifecycle::AddProcessFlags(app, process_options);
  app.add_option("--model", options.model_directory, "Hugging Face model directory (tokenizer, config)")
      ->required();
  app.add_option("--served-model-name", options.served_model_name, "Default: the directory's name");
  app.add_option("--chat-encoding", options.chat_encoding, "auto, v3 or v3.1")->capture_default_str();
  app.add_option("--http", options.http.listen, "HTTP address; port 0 = any")->capture_default_str();
  app.add_option("--http-threads", options.http.threads, "HTTP threads")->check(CLI::Range(1, 64));
  app.add_option("--connections", options.http.connections_max, "HTTP connections at once")
      ->capture_default_str();
  app.add_option("--listen", options.listen, "gRPC address; unix:/path allowed")->capture_default_str();
  app.add_option("--router", options.routers, "Router addresses, comma-separated")
      ->delimiter(',')->required();
  app.add_option("--request-timeout-s", options.request_timeout_s, "Longest answer, in seconds")
      ->check(CLI::Range(1, 86400))->capture_default_str();
  app.add_option("--max-body-mb", options.body_mb_max, "Largest request body, in MiB")
      ->check(CLI::Range(1, 1024))->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  telemetry::Metrics metrics("gateway");
  auto process = lifecycle::Process::Start(process_options, &metrics);
  if (!process.ok()) {
    std::cerr << "expertmesh-gateway: " << process.status().message() << "\n";
    return 1;
  }
  auto gateway = gateway::GatewayProcess::Start(options, **process, metrics);
  if (!gateway.ok()) {
    std::cerr << "expertmesh-gateway: " << gateway.status().message() << "\n";
    return 1;
  }
  (*process)->WaitForShutdown();
  (*gateway)->Stop(std::chrono::seconds(process_options.drain_seconds));
  return 0;
}
