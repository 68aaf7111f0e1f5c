#include "gateway/gateway_process.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <stop_token>
#include <utility>

#include "gateway/generation_config.h"
#include "services/base/model_name.h"
#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

constexpr auto kTick = std::chrono::milliseconds(250);

template <class Action>
std::jthread Repeat(Action action) {
  return std::jthread([action](const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any changed;
    while (!stop.stop_requested()) {
      action();
      std::unique_lock lock(mutex);
      changed.wait_for(lock, stop, kTick, [] { return false; });
    }
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<GatewayProcess>> GatewayProcess::Start(const GatewayOptions& options,
                                                                      lifecycle::Process& process,
                                                                      telemetry::Metrics& metrics) {
  std::unique_ptr<GatewayProcess> gateway(new GatewayProcess(process));
  process.SetNotReady("loading the tokenizer");
  EM_RETURN_IF_ERROR(gateway->LoadModel(options, metrics));
  process.SetNotReady("waiting for a router");
  EM_RETURN_IF_ERROR(gateway->Serve(options, metrics));
  gateway->Register(options);
  return gateway;
}

absl::Status GatewayProcess::LoadModel(const GatewayOptions& options, telemetry::Metrics& metrics) {
  api_.model = base::ModelName(options.model_directory, options.served_model_name);
  EM_ASSIGN_OR_RETURN(const auto overrides, model::ConfigOverrides::Parse(options.overrides));
  EM_ASSIGN_OR_RETURN(api_.config, model::LoadConfig(options.model_directory, overrides));
  EM_ASSIGN_OR_RETURN(api_.tokenizer, model::Tokenizer::Load(options.model_directory));
  const model::ChatFamily family{.model_type = api_.config.model_type,
                                 .chat_template = model::LoadChatTemplate(options.model_directory)};
  EM_ASSIGN_OR_RETURN(api_.encoding,
                      model::ChatEncodingFromFlag(options.chat_encoding, family, *api_.tokenizer));
  const std::string_view encoding = model::ChatEncodingName(api_.encoding);
  EM_ASSIGN_OR_RETURN(api_.chat_texts, model::LoadChatTexts(options.model_directory, encoding));
  spdlog::info("chat encoding {}, texts: {} {}", encoding, api_.chat_texts.source,
               api_.chat_texts.hash);
  if (options.generation_config) {
    EM_ASSIGN_OR_RETURN(api_.sampling, LoadSamplingDefaults(options.model_directory));
  }
  api_.request_timeout = std::chrono::seconds(options.request_timeout_s);
  api_.created = std::time(nullptr);
  metrics_.emplace(metrics, api_.model);
  api_.metrics = &*metrics_;
  mesh_ = std::make_unique<MeshView>(api_.model, process_);
  api_.mesh = mesh_.get();
  return absl::OkStatus();
}

absl::Status GatewayProcess::Serve(const GatewayOptions& options, telemetry::Metrics& metrics) {
  inference_ = std::make_unique<InferenceService>(api_);
  EM_ASSIGN_OR_RETURN(grpc_, rpc::Server::Start({options.listen, &metrics}, {inference_.get()}));
  EM_ASSIGN_OR_RETURN(http_, HttpServer::Start(options.http, api_));
  spdlog::info("HTTP on {} and gRPC on {} serve model {}", http_->address(), grpc_->address(),
               api_.model);
  return process_.Announce(grpc_->address(), {{"http_address", http_->address()}});
}

void GatewayProcess::Register(const GatewayOptions& options) {
  router::v1::Hello hello;
  hello.set_role(common::v1::ROLE_GATEWAY);
  hello.set_name(process_.options().name);
  hello.set_incarnation(process_.incarnation());
  hello.set_address(process_.Advertised(grpc_->address()));
  hello.set_admin_address(process_.Advertised(process_.admin_address()));
  hello.mutable_model()->set_model(api_.model);
  router_ = std::make_unique<rpc::RouterClient>(
      options.routers, std::move(hello),
      [this](const router::v1::View& view) { mesh_->OnView(view); },
      [this](const std::string& address, bool up, const std::string& reason) {
        mesh_->OnRouter(address, up, reason);
      });
  ticker_ = Repeat([this] {
    mesh_->CheckConnections();
    Report();
  });
}

// Sent by the client only where it differs from the last.
void GatewayProcess::Report() {
  const bool ready = process_.ready();
  grpc_->SetServing(ready && !process_.draining());
  router::v1::Report report;
  report.set_ready(ready);
  report.set_reason(process_.not_ready_reason());
  report.set_draining(process_.draining());
  router_->Report(report);
}

void GatewayProcess::Stop(std::chrono::milliseconds grace) {
  const auto end = std::chrono::steady_clock::now() + grace;
  if (grpc_) grpc_->SetServing(false);
  if (http_) http_->Stop(grace);
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  if (grpc_) grpc_->Shutdown(std::max(left, std::chrono::milliseconds(0)));
  ticker_ = std::jthread();
  if (router_) router_->Stop();
}

GatewayProcess::~GatewayProcess() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::gateway
