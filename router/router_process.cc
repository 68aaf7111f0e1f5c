#include "router/router_process.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "router/view_proto.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::router {

namespace metric = telemetry::metric;

namespace {

constexpr char kViewSection[] = "view";
constexpr char kLeftOutSection[] = "left_out";
constexpr const char* kStates[] = {"ready", "not_ready", "draining"};

const char* StateOf(const v1::Report& report) {
  return report.draining() ? "draining" : report.ready() ? "ready" : "not_ready";
}

std::string WhyNotReady(const v1::Report& report) {
  if (report.ready()) return "";
  return report.reason().empty() ? "not ready" : absl::StrCat("not ready: ", report.reason());
}

std::string Json(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  return google::protobuf::util::MessageToJsonString(message, &json, options).ok() ? json : "null";
}

}  // namespace

absl::StatusOr<std::unique_ptr<RouterProcess>> RouterProcess::Start(const std::string& listen,
                                                                    lifecycle::Process& process,
                                                                    telemetry::Metrics& metrics) {
  std::unique_ptr<RouterProcess> router(new RouterProcess(process, metrics));
  RouterProcess* self = router.get();
  router->view_.set_router_incarnation(process.incarnation());
  router->ShowMembers(router->view_);
  router->service_ = std::make_unique<RouterService>(
      process.incarnation(), router->clock_,
      [self](const RouterService::Change& change) { self->Show(change); });
  EM_ASSIGN_OR_RETURN(router->server_,
                      rpc::Server::Start({listen, &metrics}, {router->service_.get()}));
  process.AddStatusSection(kViewSection, [self] { return self->ViewJson(); });
  process.AddStatusSection(kLeftOutSection, [self] { return self->LeftOutJson(); });
  metrics.GetGauge(metric::kRouterLeader).Set(1);
  EM_RETURN_IF_ERROR(process.Announce(router->server_->address()));
  router->server_->SetServing(true);
  process.OnDrain([self] { self->server_->SetServing(false); });
  process.SetReady();
  return router;
}

void RouterProcess::Show(const RouterService::Change& change) {
  {
    std::lock_guard lock(mutex_);
    view_ = change.view;
    left_out_ = change.left_out;
  }
  for (const Departure& d : change.departed) {
    spdlog::warn("{} {} left: {}", RoleName(d.role), d.name, d.reason);
    process_.SetPeer({RoleName(d.role), d.name, d.address, "down", d.reason});
  }
  for (const Departure& d : change.forgotten) process_.RemovePeer(RoleName(d.role), d.name);
  ShowMembers(change.view);
}

void RouterProcess::ShowMembers(const v1::View& view) {
  std::map<std::pair<std::string, std::string>, int> counts;
  for (const auto& member : view.members()) {
    const auto& hello = member.hello();
    const auto& report = member.report();
    const std::string role = RoleName(FromProto(hello.role()));
    ++counts[{role, StateOf(report)}];
    process_.SetPeer({role, hello.name(), hello.address(), "up", WhyNotReady(report)});
  }
  for (Role role :
       {Role::kGateway, Role::kAttentionWorker, Role::kExpertWorker, Role::kEngramStore}) {
    for (const char* state : kStates) {
      metrics_
          .GetGauge(metric::kRouterRegisteredWorkers, {{"role", RoleName(role)}, {"state", state}})
          .Set(counts[{RoleName(role), state}]);
    }
  }
  uint32_t missing = 0;
  for (const auto& range : view.missing_experts()) missing += range.end() - range.begin();
  metrics_.GetGauge(metric::kRouterMissingExperts).Set(missing);
  metrics_.GetGauge(metric::kRouterPlacementEpoch)
      .Set(static_cast<double>(view.placement().epoch().number()));
}

std::string RouterProcess::ViewJson() const {
  v1::View view;
  {
    std::lock_guard lock(mutex_);
    view = view_;
  }
  return Json(view);
}

std::string RouterProcess::LeftOutJson() const {
  google::protobuf::Struct reasons;
  {
    std::lock_guard lock(mutex_);
    for (const LeftOut& out : left_out_) {
      (*reasons.mutable_fields())[out.worker].set_string_value(out.reason);
    }
  }
  return Json(reasons);
}

void RouterProcess::Stop(std::chrono::milliseconds grace) {
  process_.RemoveStatusSection(kViewSection);
  process_.RemoveStatusSection(kLeftOutSection);
  if (server_) server_->Shutdown(grace);
}

RouterProcess::~RouterProcess() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::router
