#include "engram-store/engram_process.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/revision.h"
#include "services/base/model_name.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::engram_store {

namespace {
constexpr char kStatusSection[] = "engram";
}  // namespace

absl::StatusOr<std::unique_ptr<EngramProcess>> EngramProcess::Start(const StoreOptions& options,
                                                                    lifecycle::Process& process,
                                                                    telemetry::Metrics& metrics) {
  std::unique_ptr<EngramProcess> store(new EngramProcess(process));
  EngramProcess* self = store.get();
  process.SetNotReady("opening the tables");
  store->data_directory_ = options.data_directory;
  EngramTables::Options tables;
  tables.data_directory = options.data_directory;
  tables.cold = options.cold;
  tables.hot_rows = options.hot_rows;
  tables.publishers = options.publishers;
  tables.first_lease = process.incarnation();
  EM_ASSIGN_OR_RETURN(store->tables_, EngramTables::Open(tables, store->clock_, metrics));
  std::unique_ptr<TokenHasher> hasher;
  EM_RETURN_IF_ERROR(store->LoadModel(options, hasher));
  EM_RETURN_IF_ERROR(store->Import(options, metrics));
  spdlog::info("{} versions in {}", store->tables_->List("", "", true).size(),
               options.data_directory);

  store->service_ =
      std::make_unique<EngramService>(*store->tables_, std::move(hasher), store->clock_, metrics);
  EM_ASSIGN_OR_RETURN(store->server_,
                      rpc::Server::Start({options.listen, &metrics}, {store->service_.get()}));
  process.AddStatusSection(kStatusSection, [self] { return self->StatusJson(); });
  EM_RETURN_IF_ERROR(process.Announce(store->server_->address()));
  store->server_->SetServing(true);
  process.SetReady();
  store->Register(options.routers);
  return store;
}

absl::Status EngramProcess::LoadModel(const StoreOptions& options,
                                      std::unique_ptr<TokenHasher>& hasher) {
  EM_ASSIGN_OR_RETURN(overrides_, model::ConfigOverrides::Parse(options.overrides));
  if (options.model_directory.empty()) return absl::OkStatus();
  EM_ASSIGN_OR_RETURN(const model::Config config,
                      model::LoadConfig(options.model_directory, overrides_));
  EM_ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(options.model_directory));
  EM_ASSIGN_OR_RETURN(revision_, checkpoint->Revision(model::RevisionOptions(false, overrides_)));
  model_ = base::ModelName(options.model_directory, options.served_model_name);
  if (!config.engram) return absl::OkStatus();
  hasher = std::make_unique<TokenHasher>();
  hasher->revision = revision_;
  hasher->vocab_size = config.vocab_size;
  for (size_t place = 0; place < config.engram->layer_ids.size(); ++place) {
    hasher->places[config.engram->layer_ids[place]] = place;
  }
  EM_ASSIGN_OR_RETURN(hasher->hash, model::EngramHash::Load(*checkpoint, config));
  return absl::OkStatus();
}

absl::Status EngramProcess::Import(const StoreOptions& options, telemetry::Metrics& metrics) {
  if (options.model_directory.empty()) return absl::OkStatus();
  telemetry::Gauge ratio = metrics.GetGauge(telemetry::metric::kEngramImportRatio);
  const absl::Status status = tables_->Import(
      options.model_directory, model_, revision_,
      [&](uint64_t done, uint64_t total) {
        spdlog::info("importing tables of {}: {} of {} rows", model_, done, total);
        process_.SetNotReady(absl::StrCat("importing tables: ", done, " of ", total, " rows"));
        ratio.Set(static_cast<double>(done) / static_cast<double>(total));
      },
      overrides_);
  if (status.ok() || tables_->List("", "", false).empty()) return status;
  // What is in the record is served on; who asks for this model is told why it is not there.
  import_error_ = std::string(status.message());
  spdlog::error("the tables of {} are not served: {}", model_, import_error_);
  return absl::OkStatus();
}

void EngramProcess::Register(const std::vector<std::string>& routers) {
  router::v1::Hello hello;
  hello.set_role(common::v1::ROLE_ENGRAM_STORE);
  hello.set_name(process_.options().name);
  hello.set_incarnation(process_.incarnation());
  hello.set_address(process_.Advertised(server_->address()));
  hello.set_admin_address(process_.Advertised(process_.admin_address()));
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
  if (!import_error_.empty()) fields["import_error"].set_string_value(import_error_);
  auto* versions = fields["versions"].mutable_list_value();
  for (const EngramTables::Listed& listed : tables_->List("", "", false)) {
    const VersionRecord& v = listed.record;
    auto& entry = *versions->add_values()->mutable_struct_value()->mutable_fields();
    entry["version"].set_string_value(v.version);
    entry["model"].set_string_value(v.model);
    entry["revision"].set_string_value(v.revision);
    entry["rows"].set_number_value(static_cast<double>(v.shape.total_rows()));
    entry["leases"].set_number_value(listed.leases);
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
