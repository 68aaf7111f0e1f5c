#include "services/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <spdlog/spdlog.h>
#include <sys/un.h>
#include <unistd.h>

#include <mutex>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/interceptors/metrics_interceptor.h"
#include "services/rpc/interceptors/reason_interceptor.h"

namespace expertmesh::rpc {
namespace {

constexpr char kUnixPrefix[] = "unix:";

bool IsLocal(const std::string& listen) {
  return absl::StartsWith(listen, kUnixPrefix) || absl::StartsWith(listen, "127.") ||
         absl::StartsWith(listen, "localhost:") || absl::StartsWith(listen, "[::1]:");
}

void PluginsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  builder.SetMaxSendMessageSize(kMessageBytesMax);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port is an error
  // In step with the clients' pings (channel.cc).
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(Options options,
                                                      std::vector<grpc::Service*> services) {
  PluginsOnce();
  std::unique_ptr<Server> server(new Server());
  const std::string& listen = options.listen;
  if (absl::StartsWith(listen, kUnixPrefix)) {
    server->unix_path_ = listen.substr(sizeof(kUnixPrefix) - 1);
    if (server->unix_path_.size() >= sizeof(sockaddr_un::sun_path)) {
      return base::Error(base::Reason::kInvalidArgument,
                         absl::StrCat("socket path ", server->unix_path_, " is longer than ",
                                      sizeof(sockaddr_un::sun_path) - 1, " bytes"));
    }
    unlink(server->unix_path_.c_str());  // left behind by an earlier process
  } else if (!IsLocal(listen)) {
    spdlog::warn("gRPC on {} is neither encrypted nor authenticated; keep it inside the cluster",
                 listen);
  }
  grpc::ServerBuilder builder;
  SetLimits(builder);
  int port = 0;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  if (options.metrics != nullptr) {
    interceptors.push_back(std::make_unique<MetricsInterceptorFactory>(options.metrics));
  }
  interceptors.push_back(std::make_unique<ReasonInterceptorFactory>());
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || (port == 0 && server->unix_path_.empty())) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("cannot listen on ", listen,
                                    "; is the address taken, or the folder missing?"));
  }
  server->address_ = server->unix_path_.empty()
                         ? absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port)
                         : listen;
  auto* health = server->server_->GetHealthCheckService();
  health->SetServingStatus("liveness", true);
  server->SetServing(false);
  return server;
}

Server::~Server() { Shutdown(std::chrono::milliseconds(0)); }

void Server::SetServing(bool serving) {
  auto* health = server_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus("readiness", serving);
}

void Server::Shutdown(std::chrono::milliseconds grace) {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + grace);
  server_->Wait();
  server_.reset();
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
}

}  // namespace expertmesh::rpc
