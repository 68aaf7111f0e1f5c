// The gateway as a process: tokenizer, mesh view, HTTP and gRPC doors.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "gateway/api.h"
#include "gateway/http_server.h"
#include "gateway/inference_service.h"
#include "services/lifecycle/process.h"
#include "services/rpc/router_client.h"
#include "services/rpc/server.h"

namespace expertmesh::gateway {

struct GatewayOptions {
  std::string model_directory;
  std::string served_model_name;  // empty: the directory's name
  std::string chat_encoding = "auto";
  std::string listen = "127.0.0.1:0";  // gRPC
  HttpServer::Options http;
  std::vector<std::string> routers;
  int64_t request_timeout_s = 600;
  size_t body_mb_max = 8;
};

class GatewayProcess {
 public:
  static absl::StatusOr<std::unique_ptr<GatewayProcess>> Start(const GatewayOptions& options,
                                                               lifecycle::Process& process,
                                                               telemetry::Metrics& metrics);
  ~GatewayProcess();
  void Stop(std::chrono::milliseconds grace);

 private:
  explicit GatewayProcess(lifecycle::Process& process) : process_(process) {}
  absl::Status LoadModel(const GatewayOptions& options, telemetry::Metrics& metrics);
  void Register(const GatewayOptions& options);

  lifecycle::Process& process_;
  Api api_;
  std::unique_ptr<MeshView> mesh_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<rpc::Server> grpc_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<rpc::RouterClient> router_;
};

}  // namespace expertmesh::gateway
