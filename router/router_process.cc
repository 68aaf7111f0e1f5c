#include "router/router_process.h"

#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::router {

namespace metric = telemetry::metric;

absl::StatusOr<std::unique_ptr<RouterProcess>> RouterProcess::Start(const std::string& listen,
                                                                    lifecycle::Process& process,
                                                                    telemetry::Metrics& metrics) {
  std::unique_ptr<RouterProcess> router(new RouterProcess(process, metrics));
  RouterProcess* self = router.get();
  router->service_ = std::make_unique<RouterService>(
      process.incarnation(), router->clock_,
      [self](const v1::View& view, const std::vector<Departure>& departed) {
        self->Show(view, departed);
      });
  EM_ASSIGN_OR_RETURN(router->server_,
                      rpc::Server::Start({listen, &metrics}, {router->service_.get()}));
  metrics.GetGauge(metric::kRouterLeader).Set(1);
  process.AddStatusSection("view", [self] {
    std::string json;
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    return google::protobuf::util::MessageToJsonString(self->service_->view(), &json, options).ok()
               ? json
               : std::string("{}");
  });
  EM_RETURN_IF_ERROR(process.Announce(router->server_->address()));
  router->server_->SetServing(true);
  process.SetReady();
  return router;
}

void RouterProcess::Show(const v1::View& view, const std::vector<Departure>& departed) {
  std::map<std::pair<std::string, std::string>, int> counts;
  for (const auto& member : view.members()) {
    const auto& hello = member.hello();
    const std::string role = RoleName(static_cast<Role>(static_cast<int>(hello.role()) - 1));
    const auto& report = member.report();
    const char* state = report.draining() ? "draining" : report.ready() ? "ready" : "not_ready";
    ++counts[{role, state}];
    process_.SetPeer({role, hello.name(), hello.address(), "up",
                      report.ready() ? "" : absl::StrCat("not ready: ", report.reason())});
  }
  for (Role role : {Role::kGateway, Role::kAttentionWorker, Role::kExpertWorker, Role::kEngramStore}) {
    for (const char* state : {"ready", "not_ready", "draining"}) {
      metrics_.GetGauge(metric::kRouterRegisteredWorkers, {{"role", RoleName(role)}, {"state", state}})
          .Set(counts[{RoleName(role), state}]);
    }
  }
  for (const Departure& d : departed) {
    spdlog::warn("{} {} left: {}", RoleName(d.role), d.name, d.reason);
    process_.SetPeer({RoleName(d.role), d.name, d.address, "down", d.reason});
  }
  uint32_t missing = 0;
  for (const auto& range : view.missing_experts()) missing += range.end() - range.begin();
  metrics_.GetGauge(metric::kRouterMissingExperts).Set(missing);
  metrics_.GetGauge(metric::kRouterPlacementEpoch)
      .Set(static_cast<double>(view.placement().epoch().number()));
}

void RouterProcess::Stop(std::chrono::milliseconds grace) {
  if (server_) server_->Shutdown(grace);
}

RouterProcess::~RouterProcess() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::router
