#include "expert-worker/worker.h"

#include <utility>

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "model/config.h"
#include "services/base/model_name.h"
#include "services/base/status.h"
#include "services/rpc/unix_socket.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::expert_worker {

namespace metric = telemetry::metric;

namespace {

// Another address on the same interface: a socket beside a socket, or any free port.
std::string BesideAddress(const std::string& listen) {
  if (rpc::UnixPath(listen)) return listen + ".frames";
  return listen.substr(0, listen.rfind(':')) + ":0";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(const WorkerOptions& options,
                                                      lifecycle::Process& process,
                                                      telemetry::Metrics& metrics) {
  std::unique_ptr<Worker> worker(new Worker(process));
  EM_RETURN_IF_ERROR(base::CheckComputeThreads(options.threads));
  process.SetNotReady("loading weights");
  const base::Instant start = worker->clock_.Now();
  model::ExpertSlice::Options load;
  EM_ASSIGN_OR_RETURN(load.overrides, model::ConfigOverrides::Parse(options.overrides));
  EM_ASSIGN_OR_RETURN(const model::Config config,
                      model::LoadConfig(options.model_directory, load.overrides));
  std::vector<base::ExpertRange> experts = {{0, config.n_routed_experts}};
  if (!options.slice.empty()) {
    EM_ASSIGN_OR_RETURN(experts, base::ParseSlice(options.slice, config.n_routed_experts));
  }
  load.directory = options.model_directory;
  load.profile = options.profile;
  load.experts = experts;
  load.masked_gate_group_zero = options.masked_gate_group_zero;
  EM_ASSIGN_OR_RETURN(auto slice, model::ExpertSlice::Load(load));
  const base::Micros load_time = worker->clock_.Now() - start;
  metrics.GetHistogram(metric::kExpertSliceLoadSeconds)
      .Observe(static_cast<double>(load_time.count()) * 1e-6);
  spdlog::info("experts {} of {} loaded: {:.1f} MiB in {:.1f} s", base::SliceName(experts),
               config.n_routed_experts,
               static_cast<double>(slice->weight_bytes()) / (1024.0 * 1024.0),
               static_cast<double>(load_time.count()) * 1e-6);

  ExpertEngine::Options engine;
  engine.threads = options.threads;
  engine.threads.helpers_give_way = true;
  engine.model = base::ModelName(options.model_directory, options.served_model_name);
  worker->engine_ =
      std::make_unique<ExpertEngine>(std::move(slice), engine, worker->clock_, metrics);
  EM_RETURN_IF_ERROR(worker->engine_->SelfTest());

  EM_RETURN_IF_ERROR(worker->StartRings(options, metrics));
  ExpertEngine* core = worker->engine_.get();
  EM_RETURN_IF_ERROR(worker->StartFrames(options, metrics));
  const std::string frames = process.Advertised(worker->frames_->address());
  worker->service_ = std::make_unique<transport::ExpertServer>(
      process.incarnation(),
      [core, frames](const expert::v1::DescribeRequest& request) {
        expert::v1::DescribeResponse description = core->Describe(request.load());
        description.set_frames_address(frames);
        return description;
      },
      worker->rings_.get());
  EM_ASSIGN_OR_RETURN(worker->server_,
                      rpc::Server::Start({options.listen, &metrics}, {worker->service_.get()}));
  process.AddStatusSection("frames_address", [frames] { return absl::StrCat("\"", frames, "\""); });
  process.AddStatusSection("experts", [core] { return core->StatusJson(); });
  EM_RETURN_IF_ERROR(process.Announce(worker->server_->address()));
  worker->server_->SetServing(true);
  process.SetReady();
  worker->Register(options);
  return worker;
}

absl::Status Worker::StartFrames(const WorkerOptions& options, telemetry::Metrics& metrics) {
  ExpertEngine* core = engine_.get();
  transport::FrameDoor::Options frames;
  frames.listen =
      options.listen_frames.empty() ? BesideAddress(options.listen) : options.listen_frames;
  frames.incarnation = process_.incarnation();
  frames.handler = [core](absl::StatusOr<transport::DispatchFrame> frame, transport::Reply reply) {
    core->Queue(std::move(frame), std::move(reply));
  };
  frames.drained = [core] { core->ServeQueued(); };
  frames.broken = [&metrics](const std::string& why) {
    spdlog::warn("a caller of dispatch frames is refused: {}", why);
    metrics.GetCounter(metric::kBadInput, {{"reason", "FRAME_MALFORMED"}}).Add();
  };
  auto door = transport::FrameDoor::Start(std::move(frames));
  if (!door.ok()) {
    return base::Error(base::ReasonOf(door.status()),
                       absl::StrCat("--listen-frames: ", std::string(door.status().message())));
  }
  frames_ = *std::move(door);
  spdlog::info("dispatch frames: gRPC {}", frames_->address());
  return absl::OkStatus();
}

absl::Status Worker::StartRings(const WorkerOptions& options, telemetry::Metrics& metrics) {
  if (options.transport == "grpc") return absl::OkStatus();
  if (options.transport != "auto" && options.transport != "shm") {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("--transport ", options.transport, ": use auto, shm or grpc"));
  }
  ExpertEngine* core = engine_.get();
  transport::ShmServer::Options rings;
  rings.handler = [core](absl::StatusOr<transport::DispatchFrame> frame, transport::Reply reply) {
    core->Queue(std::move(frame), std::move(reply));
  };
  rings.drained = [core] { core->ServeQueued(); };
  rings.broken = [&metrics](bool fault, const std::string& why) {
    if (!fault) return;
    spdlog::warn("a ring is closed: {}", why);
    metrics.GetCounter(metric::kBadInput, {{"reason", "FRAME_MALFORMED"}}).Add();
  };
  auto started = transport::ShmServer::Start(std::move(rings));
  if (started.ok()) {
    rings_ = *std::move(started);
  } else if (options.transport == "shm") {
    return started.status();
  } else {
    spdlog::info("no rings for callers on this host: {}", std::string(started.status().message()));
  }
  return absl::OkStatus();
}

void Worker::Register(const WorkerOptions& options) {
  const expert::v1::DescribeResponse description = engine_->Describe();
  router::v1::Hello hello;
  hello.set_role(common::v1::ROLE_EXPERT_WORKER);
  hello.set_name(process_.options().name);
  hello.set_incarnation(process_.incarnation());
  hello.set_address(process_.Advertised(server_->address()));
  hello.set_frames_address(process_.Advertised(frames_->address()));
  hello.set_admin_address(process_.Advertised(process_.admin_address()));
  *hello.mutable_model() = description.model();
  hello.set_profile(description.profile());
  hello.set_fingerprint(description.fingerprint());
  *hello.mutable_experts() = description.experts();
  hello.set_expert_count(engine_->slice().expert_count());
  router_ = std::make_unique<rpc::RouterClient>(
      options.routers, std::move(hello),
      [this](const router::v1::View& view) {
        if (!view.has_placement()) return;
        const auto& epoch = view.placement().epoch();
        engine_->Learn({epoch.term(), epoch.number(), epoch.content_hash()});
      },
      [this](const std::string& address, bool up, const std::string& reason) {
        process_.SetPeer({"router", address, address, up ? "up" : "down", up ? "" : reason});
      });
  router::v1::Report report;
  report.set_ready(true);
  router_->Report(report);
  process_.OnDrain([this] {
    router::v1::Report draining;
    draining.set_draining(true);
    draining.set_reason("draining");
    router_->Report(draining);
    server_->SetServing(false);
  });
}

void Worker::Stop(std::chrono::milliseconds grace) {
  if (router_) router_->Stop();
  if (server_) server_->Shutdown(grace);
  if (frames_) frames_->Stop(grace);
  if (rings_) rings_->Stop();
}

Worker::~Worker() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::expert_worker
