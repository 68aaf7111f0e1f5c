#include "attention-worker/worker.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/tokenizer/tokenizer.h"
#include "services/base/model_name.h"
#include "services/base/random.h"
#include "services/base/status.h"
#include "services/transport/grpc_transport.h"
#include "services/transport/inproc.h"
#include "services/transport/shm_transport.h"

namespace expertmesh::attention_worker {

namespace {

constexpr size_t kKvBytesDefault = size_t{1} << 30;
constexpr auto kReportEvery = std::chrono::milliseconds(250);

size_t PagesDefault(const model::LaneStateDeclaration& lane_state, uint64_t context, size_t lanes) {
  const size_t per_lane = (context + model::kPagePositions - 1) / model::kPagePositions;
  const size_t affordable = kKvBytesDefault / std::max<size_t>(1, lane_state.page_bytes());
  return std::max<size_t>(1, std::min(per_lane * lanes, affordable));
}

// 256 bits that nobody else knows: prefix keys mean nothing outside this process.
std::string NewSecret() {
  std::string secret;
  for (int i = 0; i < 4; ++i) {
    const uint64_t word = base::EntropyU64();
    secret.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  return secret;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(WorkerOptions options,
                                                      lifecycle::Process& process,
                                                      telemetry::Metrics& metrics) {
  std::unique_ptr<Worker> worker(new Worker(std::move(options), process, metrics));
  EM_RETURN_IF_ERROR(base::CheckComputeThreads(worker->options_.threads));
  process.SetNotReady("loading weights");
  EM_RETURN_IF_ERROR(worker->LoadModel());
  worker->StartMemory();
  EM_RETURN_IF_ERROR(worker->StartExperts());
  EM_RETURN_IF_ERROR(worker->StartEngine());
  EM_RETURN_IF_ERROR(worker->Serve());
  worker->Register();
  return worker;
}

absl::Status Worker::LoadModel() {
  const base::Instant start = clock_.Now();
  if (options_.scheduler.preempt_every > 0 && !options_.debug_api) {
    return base::Error(base::Reason::kInvalidArgument,
                       "--debug-preempt-every needs --debug-api: it makes every answer slower");
  }
  EM_ASSIGN_OR_RETURN(overrides_, model::ConfigOverrides::Parse(options_.overrides));
  model::AttentionModel::Options load;
  load.directory = options_.model_directory;
  load.overrides = overrides_;
  load.profile = options_.profile;
  load.masked_gate_group_zero = options_.masked_gate_group_zero;
  EM_ASSIGN_OR_RETURN(const bool reads_store, ReadsStore());
  load.local_memory = !reads_store;
  EM_ASSIGN_OR_RETURN(model_, model::AttentionModel::Load(load));
  const model::Config& config = model_->config();
  identity_.name = process_.options().name;
  identity_.model = base::ModelName(options_.model_directory, options_.served_model_name);
  identity_.revision = model_->revision();
  identity_.profile = model_->profile().name;
  identity_.fingerprint = model_->fingerprint();
  identity_.context = config.max_position_embeddings;
  identity_.vocab_size = config.vocab_size;
  identity_.layers = config.num_hidden_layers;
  identity_.top_k = config.num_experts_per_tok;
  identity_.debug_api = options_.debug_api;
  if (options_.scheduler.pages_total == 0) {
    options_.scheduler.pages_total =
        PagesDefault(model_->lane_state(), identity_.context, options_.scheduler.lanes_max);
  }
  identity_.lane_tokens = options_.scheduler.pages_total * model::kPagePositions;
  spdlog::info("model {} revision {} profile {} loaded in {:.1f} s; {} pages of {} KiB",
               identity_.model, identity_.revision.substr(0, 12), identity_.profile,
               static_cast<double>((clock_.Now() - start).count()) * 1e-6,
               options_.scheduler.pages_total, model_->lane_state().page_bytes() / 1024);
  return absl::OkStatus();
}

absl::StatusOr<bool> Worker::ReadsStore() const {
  EM_ASSIGN_OR_RETURN(const model::Config config,
                      model::LoadConfig(options_.model_directory, overrides_));
  if (options_.memory != "auto" && options_.memory != "store" && options_.memory != "local") {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("--memory ", options_.memory, ": use auto, store or local"));
  }
  if (!config.engram || options_.memory == "local") return false;
  if (options_.memory == "store") return true;
  return options_.transport != "inproc" || !options_.engram.empty();
}

void Worker::StartMemory() {
  if (!model_->config().engram || !*ReadsStore()) return;
  EngramStores::Options stores;
  stores.model = identity_.model;
  stores.revision = identity_.revision;
  stores.worker = identity_.name;
  stores.map_segments = options_.engram_transport == "auto";
  stores_ = std::make_unique<EngramStores>(stores);
  std::vector<EngramStoreAddress> named;
  for (const std::string& address : options_.engram) {
    named.push_back({address, named.size() + 1, address});
  }
  stores_->SetStores(named);
  memory_ = std::make_unique<EngramClient>(*stores_, options_.memory_limits, clock_, metrics_);
}

absl::Status Worker::StartExperts() {
  experts_ = std::make_unique<ExpertDispatcher>(
      ExpertDispatcher::Options{identity_.model, identity_.revision, model_->profile(),
                                options_.limits, std::hash<std::string>()(identity_.name)},
      clock_, metrics_);
  link_ = std::make_unique<RouterLink>(identity_.revision, *experts_, process_,
                                       options_.engram.empty() ? stores_.get() : nullptr,
                                       std::hash<std::string>()(identity_.name));
  return options_.transport == "inproc" ? StartInproc() : StartTransport();
}

absl::Status Worker::StartTransport() {
  const std::string& name = options_.transport;
  const auto on_peer = [this](const std::string& peer, bool up, const std::string& why) {
    link_->OnPeer(peer, up, why);
  };
  if (name == "grpc") {
    transport_ = std::make_unique<transport::GrpcTransport>(process_.incarnation(), on_peer);
  } else if (name == "auto" || name == "shm") {
    transport::ShmTransport::Options rings;
    rings.incarnation = process_.incarnation();
    rings.required = name == "shm";
    transport_ = std::make_unique<transport::ShmTransport>(rings, on_peer);
  } else {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("--transport ", name, ": use auto, shm, grpc or inproc"));
  }
  experts_->Attach(transport_.get());
  return absl::OkStatus();
}

absl::Status Worker::StartInproc() {
  const std::vector<base::ExpertRange> all = {{0, model_->config().n_routed_experts}};
  model::ExpertSlice::Options load;
  load.directory = options_.model_directory;
  load.profile = options_.profile;
  load.experts = all;
  load.overrides = overrides_;
  load.masked_gate_group_zero = options_.masked_gate_group_zero;
  EM_ASSIGN_OR_RETURN(auto slice, model::ExpertSlice::Load(load));
  inproc_ = std::make_unique<InprocExperts>(std::move(slice), options_.threads);
  transport_ = std::make_unique<transport::InprocTransport>(
      [this](absl::StatusOr<transport::DispatchFrame> frame, const transport::Reply& reply) {
        inproc_->OnFrame(std::move(frame), reply);
      },
      [this](const std::string& peer, bool up, const std::string& why) {
        link_->OnPeer(peer, up, why);
      });
  experts_->Attach(transport_.get());
  link_->OnInproc(inproc_->View());
  return absl::OkStatus();
}

absl::Status Worker::StartEngine() {
  AttentionEngine::Options engine;
  engine.threads = options_.threads;
  engine.scheduler = options_.scheduler;
  engine.micro_batches = options_.micro_batches;
  engine.end_tokens = model_->config().eos_token_ids;
  engine.parked_lifetime = options_.parked_lifetime;
  engine.memory = memory_.get();
  if (options_.prefix_cache) {
    engine.prefix_secret = NewSecret();
    engine.prefix_seed.revision = identity_.revision;
    engine.prefix_seed.profile = identity_.profile;
  }
  const auto path = std::filesystem::path(options_.model_directory) / "tokenizer.json";
  if (std::filesystem::exists(path)) {
    EM_ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::Load(options_.model_directory));
    engine.prefix_seed.tokenizer = tokenizer->Hash();
    engine.masked_tokens = tokenizer->PlaceholderMask(identity_.vocab_size);
    constraints_ = std::make_unique<ConstraintCompiler>(*tokenizer, identity_.vocab_size);
    identity_.constraints = constraints_.get();
  }
  engine_ = std::make_unique<AttentionEngine>(*model_, *experts_, engine, clock_, metrics_);
  return absl::OkStatus();
}

absl::Status Worker::Serve() {
  const auto admit = [this] { return link_->Admit(); };
  generate_ = std::make_unique<GenerateService>(*engine_, identity_, clock_, admit, stores_.get());
  lanes_ = std::make_unique<LaneService>(*engine_, *experts_, model_->lane_state(), identity_,
                                         clock_, admit, stores_.get());
  EM_ASSIGN_OR_RETURN(
      server_, rpc::Server::Start({options_.listen, &metrics_}, {generate_.get(), lanes_.get()}));
  process_.AddStatusSection("lanes", [this] { return StatusJson(); });
  if (stores_) process_.AddStatusSection("memory", [this] { return MemoryJson(); });
  EM_RETURN_IF_ERROR(process_.Announce(server_->address()));
  server_->SetServing(true);
  return absl::OkStatus();
}

void Worker::Register() {
  router::v1::Hello hello;
  hello.set_role(common::v1::ROLE_ATTENTION_WORKER);
  hello.set_name(identity_.name);
  hello.set_incarnation(process_.incarnation());
  hello.set_address(process_.Advertised(server_->address()));
  hello.set_admin_address(process_.Advertised(process_.admin_address()));
  hello.mutable_model()->set_model(identity_.model);
  hello.mutable_model()->set_revision(identity_.revision);
  hello.set_profile(identity_.profile);
  hello.set_fingerprint(identity_.fingerprint);
  hello.set_expert_count(model_->config().n_routed_experts);
  const bool inproc = inproc_ != nullptr;
  if (options_.routers.empty()) return;
  router_ = std::make_unique<rpc::RouterClient>(
      options_.routers, std::move(hello),
      [this, inproc](const router::v1::View& view) {
        if (!inproc) link_->OnView(view);
      },
      [this](const std::string& address, bool up, const std::string& reason) {
        link_->OnRouter(address, up, reason);
      });
  router_->Report(MakeReport());
  reporter_ = std::thread([this] { ReportLoop(); });
}

router::v1::Report Worker::MakeReport() const {
  const AttentionEngine::Load load = engine_->load();
  router::v1::Report report;
  report.set_ready(process_.ready());
  report.set_draining(process_.draining());
  report.set_reason(process_.not_ready_reason());
  report.set_load(load.running);
  report.set_queued(load.waiting);
  return report;
}

void Worker::ReportLoop() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kReportEvery, [&] { return stop_; })) {
    router_->Report(MakeReport());
  }
}

std::string Worker::StatusJson() const {
  const AttentionEngine::Load load = engine_->load();
  const PlacementView view = experts_->view();
  return absl::StrCat("{\"running\":", load.running, ",\"waiting\":", load.waiting,
                      ",\"pages_used\":", load.pages_used, ",\"pages_total\":", load.pages_total,
                      ",\"epoch\":\"", view.term, ".", view.number, "\",\"profile\":\"",
                      identity_.profile, "\",\"fingerprint\":\"", identity_.fingerprint,
                      "\",\"revision\":\"", identity_.revision, "\"}");
}

// Versions are hex digits.
std::string Worker::MemoryJson() const {
  const std::vector<std::string> mapped = stores_->mapped_versions();
  return absl::StrCat("{\"engram_transport\":\"", options_.engram_transport,
                      "\",\"mapped_versions\":[", mapped.empty() ? "" : "\"",
                      absl::StrJoin(mapped, "\",\""), mapped.empty() ? "" : "\"", "]}");
}

void Worker::Stop(std::chrono::milliseconds grace) {
  {
    std::lock_guard lock(mutex_);
    if (stop_) return;
    stop_ = true;
  }
  wake_.notify_all();
  if (server_) server_->SetServing(false);
  if (router_) router_->Report(MakeReport());
  if (reporter_.joinable()) reporter_.join();
  if (server_) server_->Shutdown(grace);  // running streams may finish until then
  if (router_) router_->Stop();
  if (stores_) stores_->Stop();  // no lane begins any more
  engine_.reset();
  transport_.reset();
}

Worker::~Worker() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::attention_worker
