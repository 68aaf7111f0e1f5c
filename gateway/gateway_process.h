// The gateway as a process: tokenizer, view of the mesh, HTTP and gRPC doors.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gateway/api.h"
#include "gateway/http_server.h"
#include "gateway/inference_service.h"
#include "services/lifecycle/process.h"
#include "services/rpc/router_client.h"
#include "services/rpc/server.h"

namespace expertmesh::gateway {

struct GatewayOptions {
  std::string model_directory = {};
  std::string served_model_name = {};       // empty: the directory's name
  std::vector<std::string> overrides = {};  // "key=value" of config.json, as the workers'
  std::string chat_encoding = "auto";
  bool generation_config = true;       // defaults of sampling from generation_config.json
  std::string listen = "127.0.0.1:0";  // gRPC
  HttpServer::Options http = {};
  std::vector<std::string> routers = {};
  int64_t request_timeout_s = 600;
};

class GatewayProcess {
 public:
  /// `process` and `metrics` outlive it. Errors name the file or the flag at fault.
  static absl::StatusOr<std::unique_ptr<GatewayProcess>> Start(const GatewayOptions& options,
                                                               lifecycle::Process& process,
                                                               telemetry::Metrics& metrics);
  ~GatewayProcess();
  /// Lets answers in flight end for up to `grace`. Idempotent.
  void Stop(std::chrono::milliseconds grace);

 private:
  explicit GatewayProcess(lifecycle::Process& process) : process_(process) {}
  absl::Status LoadModel(const GatewayOptions& options, telemetry::Metrics& metrics);
  absl::Status Serve(const GatewayOptions& options, telemetry::Metrics& metrics);
  void Register(const GatewayOptions& options);
  void Report();

  lifecycle::Process& process_;
  Api api_;
  std::optional<GatewayMetrics> metrics_;
  std::unique_ptr<MeshView> mesh_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<rpc::Server> grpc_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<rpc::RouterClient> router_;
  std::jthread ticker_;  // reports and looks at connections; ends before the rest
};

}  // namespace expertmesh::gateway
