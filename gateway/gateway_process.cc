#include "gateway/gateway_process.h"

#include <spdlog/spdlog.h>

#include <ctime>
#include <utility>

#include "services/base/model_name.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

absl::Status GatewayProcess::LoadModel(const GatewayOptions& options, telemetry::Metrics& metrics) {
  api_.model = base::ModelName(options.model_directory, options.served_model_name);
  EM_ASSIGN_OR_RETURN(api_.config, model::LoadConfig(options.model_directory));
  EM_ASSIGN_OR_RETURN(api_.tokenizer, model::Tokenizer::Load(options.model_directory));
  EM_ASSIGN_OR_RETURN(api_.encoding,
                      model::ChatEncodingFromFlag(options.chat_encoding, api_.config.model_type,
                                                  *api_.tokenizer));
  api_.request_timeout = std::chrono::seconds(options.request_timeout_s);
  api_.body_bytes_max = options.body_mb_max << 20;
  api_.created = std::time(nullptr);
  api_.metrics = &metrics;
  mesh_ = std::make_unique<MeshView>(api_.model, process_);
  api_.mesh = mesh_.get();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GatewayProcess>> GatewayProcess::Start(
    const GatewayOptions& options, lifecycle::Process& process, telemetry::Metrics& metrics) {
  std::unique_ptr<GatewayProcess> gateway(new GatewayProcess(process));
  process.SetNotReady("loading the tokenizer");
  EM_RETURN_IF_ERROR(gateway->LoadModel(options, metrics));
  process.SetNotReady("waiting for a router");
  gateway->inference_ = std::make_unique<InferenceService>(gateway->api_);
  EM_ASSIGN_OR_RETURN(gateway->grpc_, rpc::Server::Start({options.listen, &metrics},
                                                         {gateway->inference_.get()}));
  EM_ASSIGN_OR_RETURN(gateway->http_, HttpServer::Start(options.http, gateway->api_));
  spdlog::info("HTTP on {} serves model {}", gateway->http_->address(), gateway->api_.model);
  EM_RETURN_IF_ERROR(process.Announce(gateway->grpc_->address(),
                                      {{"http_address", gateway->http_->address()}}));
  gateway->grpc_->SetServing(true);
  gateway->Register(options);
  return gateway;
}

void GatewayProcess::Register(const GatewayOptions& options) {
  router::v1::Hello hello;
  hello.set_role(common::v1::ROLE_GATEWAY);
  hello.set_name(process_.options().name);
  hello.set_incarnation(process_.incarnation());
  hello.set_address(grpc_->address());
  hello.set_admin_address(process_.admin_address());
  hello.mutable_model()->set_model(api_.model);
  router_ = std::make_unique<rpc::RouterClient>(
      options.routers, std::move(hello),
      [this](const router::v1::View& view) {
        mesh_->OnView(view);
        router::v1::Report report;
        report.set_ready(process_.ready());
        report.set_reason(process_.not_ready_reason());
        report.set_draining(process_.draining());
        if (router_) router_->Report(report);
      },
      [this](const std::string& address, bool up, const std::string& reason) {
        mesh_->OnRouter(address, up, reason);
      });
  process_.OnDrain([this] { grpc_->SetServing(false); });
}

void GatewayProcess::Stop(std::chrono::milliseconds grace) {
  if (http_) http_->Stop(grace);
  if (grpc_) grpc_->Shutdown(grace);
  if (router_) router_->Stop();
}

GatewayProcess::~GatewayProcess() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::gateway
