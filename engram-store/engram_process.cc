#include "engram-store/engram_process.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "model/checkpoint.h"
#include "services/base/model_name.h"
#include "services/base/status.h"

namespace expertmesh::engram_store {

namespace {
constexpr char kStatusSection[] = "engram";
}  // namespace

absl::StatusOr<std::unique_ptr<EngramProcess>> EngramProcess::Start(const StoreOptions& options,
                                                                    lifecycle::Process& process,
                                                                    telemetry::Metrics& metrics) {
  std::unique_ptr<EngramProcess> store(new EngramProcess(process));
  EngramProcess* self = store.get();
  process.SetNotReady("opening the database");
  store->data_directory_ = options.data_directory;
  EM_ASSIGN_OR_RETURN(store->db_, EngramDb::Open(options.data_directory));
  EM_ASSIGN_OR_RETURN(std::vector<VersionRecord> versions, store->db_->ListVersions());
  EM_RETURN_IF_ERROR(store->LoadModelRef(options));
  spdlog::info("{} versions in {}", versions.size(), options.data_directory);

  store->service_ = std::make_unique<EngramService>(VersionCatalogue(std::move(versions)),
                                                    store->clock_, metrics);
  EM_ASSIGN_OR_RETURN(store->server_,
                      rpc::Server::Start({options.listen, &metrics}, {store->service_.get()}));
  process.AddStatusSection(kStatusSection, [self] { return self->StatusJson(); });
  EM_RETURN_IF_ERROR(process.Announce(store->server_->address()));
  store->server_->SetServing(true);
  process.SetReady();
  store->Register(options.routers);
  return store;
}

absl::Status EngramProcess::LoadModelRef(const StoreOptions& options) {
  if (options.model_directory.empty()) return absl::OkStatus();
  EM_ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(options.model_directory));
  EM_ASSIGN_OR_RETURN(revision_, checkpoint->Revision());
  model_ = base::ModelName(options.model_directory, options.served_model_name);
  return absl::OkStatus();
}

void EngramProcess::Register(const std::vector<std::string>& routers) {
  router::v1::Hello hello;
  hello.set_role(common::v1::ROLE_ENGRAM_STORE);
  hello.set_name(process_.options().name);
  hello.set_incarnation(process_.incarnation());
  hello.set_address(server_->address());
  hello.set_admin_address(process_.admin_address());
  hello.mutable_model()->set_model(model_);
  hello.mutable_model()->set_revision(revision_);
  router_ = std::make_unique<rpc::RouterClient>(
      routers, std::move(hello), nullptr,
      [this](const std::string& address, bool up, const std::string& reason) {
        process_.SetPeer({"router", address, address, up ? "up" : "down", up ? "" : reason});
      });
  router::v1::Report ready;
  ready.set_ready(true);
  router_->Report(ready);
  process_.OnDrain([this] {
    router::v1::Report draining;
    draining.set_draining(true);
    draining.set_reason("draining");
    router_->Report(draining);
    server_->SetServing(false);
  });
}

std::string EngramProcess::StatusJson() const {
  google::protobuf::Struct status;
  auto& fields = *status.mutable_fields();
  fields["data"].set_string_value(data_directory_);
  fields["model"].set_string_value(model_);
  fields["revision"].set_string_value(revision_);
  auto* versions = fields["versions"].mutable_list_value();
  for (const VersionRecord& v : service_->catalogue().List("", "")) {
    auto& entry = *versions->add_values()->mutable_struct_value()->mutable_fields();
    entry["version"].set_string_value(v.version);
    entry["model"].set_string_value(v.model);
    entry["revision"].set_string_value(v.revision);
    entry["rows"].set_number_value(static_cast<double>(v.rows));
  }
  std::string json;
  return google::protobuf::util::MessageToJsonString(status, &json).ok() ? json : "null";
}

void EngramProcess::Stop(std::chrono::milliseconds grace) {
  process_.RemoveStatusSection(kStatusSection);
  if (router_) router_->Stop();
  if (server_) server_->Shutdown(grace);
}

EngramProcess::~EngramProcess() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::engram_store
