#include "services/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/interceptors/identity_interceptor.h"
#include "services/rpc/interceptors/metrics_interceptor.h"
#include "services/rpc/interceptors/reason_interceptor.h"
#include "services/rpc/listen_address.h"
#include "services/rpc/unix_socket.h"

namespace expertmesh::rpc {
namespace {

void PluginsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    // gRPC's health service brings no descriptor; naming ours links it in, so that reflection knows
    // it.
    grpc::health::v1::HealthCheckRequest::descriptor();
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  builder.SetMaxSendMessageSize(kMessageBytesMax);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port is an error
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kHttp2FrameBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kPingIntervalMinMs);
  // Handlers are callbacks; only reflection is synchronous, and a queue per core is too much for
  // it.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
}

// gRPC calls the hooks before a status in this order: metrics see what is sent in the end.
void SetInterceptors(grpc::ServerBuilder& builder, telemetry::Metrics* metrics) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
  creators.push_back(std::make_unique<IdentityInterceptorFactory>(metrics));
  creators.push_back(std::make_unique<ReasonInterceptorFactory>());
  if (metrics != nullptr) creators.push_back(std::make_unique<MetricsInterceptorFactory>(*metrics));
  builder.experimental().SetInterceptorCreators(std::move(creators));
}

// What peers dial; `built` and `port` are of the server that should listen there.
absl::StatusOr<std::string> AddressOf(const std::string& listen, const grpc::Server* built,
                                      int port) {
  const bool is_unix = UnixPath(listen).has_value();
  if (built == nullptr || (port <= 0 && !is_unix)) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("cannot listen on ", listen,
                                    "; is the address taken, or the folder missing?"));
  }
  return is_unix ? listen : absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(Options options,
                                                      std::vector<grpc::Service*> services) {
  PluginsOnce();
  const std::string& listen = options.listen;
  EM_RETURN_IF_ERROR(PrepareAddress(listen));
  grpc::ServerBuilder builder;
  SetLimits(builder);
  SetInterceptors(builder, options.metrics);
  int port = 0;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::shared_ptr<grpc::Server> built = builder.BuildAndStart();
  EM_ASSIGN_OR_RETURN(const std::string address, AddressOf(listen, built.get(), port));
  std::unique_ptr<Server> server(new Server(address));
  server->server_ = std::move(built);
  server->server_->GetHealthCheckService()->SetServingStatus("liveness", true);
  server->SetServing(false);
  return server;
}

Server::~Server() { Shutdown(std::chrono::milliseconds(0)); }

void Server::SetServing(bool serving) {
  std::lock_guard lock(mutex_);
  if (server_ == nullptr) return;
  auto* health = server_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus("readiness", serving);
}

void Server::Shutdown(std::chrono::milliseconds grace) {
  std::shared_ptr<grpc::Server> server;
  {
    std::lock_guard lock(mutex_);
    server.swap(server_);
  }
  if (server == nullptr) return;
  server->Shutdown(std::chrono::system_clock::now() + grace);
  server->Wait();
}

}  // namespace expertmesh::rpc
