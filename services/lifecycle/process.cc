#include "services/lifecycle/process.h"

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/random.h"
#include "services/base/status.h"
#include "services/lifecycle/admin_server.h"
#include "services/lifecycle/status_page.h"
#include "services/lifecycle/stop_signals.h"
#include "services/telemetry/log.h"

namespace expertmesh::lifecycle {
namespace {

uint64_t NewIncarnation() {
  uint64_t id = 0;
  while (id == 0) id = base::EntropyU64();
  return id;
}

// Writes text beside path, then renames it: a reader sees the whole file or none.
absl::Status WriteAtomically(const std::string& path, const std::string& text) {
  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "we");
  bool ok = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (file != nullptr) ok = (std::fclose(file) == 0) && ok;
  if (ok && std::rename(temporary.c_str(), path.c_str()) == 0) return absl::OkStatus();
  const std::string why = std::strerror(errno);
  std::remove(temporary.c_str());
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("cannot write the announce file ", path, ": ", why,
                                  "; give --announce-file a path in a writable folder"));
}

}  // namespace

struct Process::Impl {
  // Serves one page; on the admin thread.
  AdminReply Page(std::string_view path);
  StatusSnapshot Snapshot();
  // Waits for a stop; then drains. Body of watch_thread.
  void WatchForStop();
  void BeginDrain();
  void RunDrainCallbacks();
  void SetReadiness(std::string reason);

  ProcessOptions options;
  telemetry::Metrics* metrics = nullptr;
  const uint64_t incarnation = NewIncarnation();
  const absl::Time started = absl::Now();
  telemetry::Gauge ready_gauge;

  std::mutex mutex;                 // guards what follows, up to the blank line
  std::string reason = "starting";  // why not ready; empty: ready
  std::string shutdown_reason;      // of RequestShutdown
  bool draining = false;
  bool drained = false;  // the drain callbacks have run
  bool closing = false;  // the destructor has begun
  std::condition_variable changed;
  std::map<std::pair<std::string, std::string>, PeerEntry> peers;  // by (role, name)
  std::vector<std::function<void()>> drain_callbacks;

  std::mutex sections_mutex;  // held while a section's callback runs
  std::map<std::string, std::function<std::string()>> sections;

  std::unique_ptr<StopSignals> stop;
  std::thread watch_thread;
  std::unique_ptr<AdminServer> admin;
};

AdminReply Process::Impl::Page(std::string_view path) {
  if (path == "/livez") return {.body = "alive\n"};
  if (path == "/metrics") {
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
            .body = metrics->Serialize()};
  }
  if (path == "/statusz") {
    return {.content_type = "application/json", .body = StatusPage(Snapshot())};
  }
  if (path == "/readyz") {
    std::lock_guard lock(mutex);
    if (reason.empty()) return {.body = "ready\n"};
    return {.status = 503, .body = absl::StrCat("not ready: ", reason, "\n")};
  }
  return {.status = 404, .body = "this port serves /livez /readyz /statusz /metrics\n"};
}

StatusSnapshot Process::Impl::Snapshot() {
  StatusSnapshot snapshot{.name = options.name,
                          .role = options.role,
                          .incarnation = incarnation,
                          .started = started,
                          .now = absl::Now()};
  {
    std::lock_guard lock(mutex);
    snapshot.not_ready_reason = reason;
    snapshot.draining = draining;
    for (const auto& [key, peer] : peers) snapshot.peers.push_back(peer);
  }
  std::lock_guard lock(sections_mutex);
  for (const auto& [key, json] : sections) snapshot.sections.emplace_back(key, json());
  return snapshot;
}

void Process::Impl::SetReadiness(std::string why_not) {
  std::lock_guard lock(mutex);
  if (draining || reason == why_not) return;
  reason = std::move(why_not);
  ready_gauge.Set(reason.empty() ? 1 : 0);
  if (reason.empty()) {
    spdlog::info("ready");
  } else {
    spdlog::warn("not ready: {}", reason);
  }
}

void Process::Impl::BeginDrain() {
  std::lock_guard lock(mutex);
  draining = true;
  reason = "draining";
  ready_gauge.Set(0);
  metrics->GetGauge(telemetry::metric::kDraining).Set(1);
  const int signal = StopSignals::Received();
  const std::string cause = !shutdown_reason.empty() ? shutdown_reason : strsignal(signal);
  spdlog::info("stopping ({}): draining for up to {} s", cause, options.drain_seconds);
}

void Process::Impl::RunDrainCallbacks() {
  std::unique_lock lock(mutex);
  for (size_t i = 0; i < drain_callbacks.size(); ++i) {
    const std::function<void()> callback = drain_callbacks[i];
    lock.unlock();
    callback();
    lock.lock();
  }
  drained = true;
  changed.notify_all();
}

void Process::Impl::WatchForStop() {
  stop->Wait();
  {
    std::lock_guard lock(mutex);
    if (closing) return;
  }
  BeginDrain();
  std::thread drain([this] { RunDrainCallbacks(); });
  const std::chrono::seconds limit(options.drain_seconds + options.stop_margin_seconds);
  {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, limit, [this] { return closing; })) {
      spdlog::error("still alive {} s after the stop signal: giving up", limit.count());
      drain.detach();
      _exit(1);
    }
  }
  drain.join();
}

Process::Process(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<Process>> Process::Start(ProcessOptions options,
                                                        telemetry::Metrics* metrics) {
  auto impl = std::make_unique<Impl>();
  Impl* raw = impl.get();
  raw->options = std::move(options);
  if (raw->options.name.empty()) raw->options.name = absl::StrCat(raw->options.role, "-", getpid());
  raw->metrics = metrics;
  raw->ready_gauge = metrics->GetGauge(telemetry::metric::kReady);
  telemetry::InitLogging(raw->options.name, raw->options.log_level);

  const std::string invalid(base::ReasonName(base::Reason::kInvalidArgument));
  telemetry::Counter bad = metrics->GetCounter(telemetry::metric::kBadInput, {{"reason", invalid}});
  EM_ASSIGN_OR_RETURN(
      raw->admin,
      AdminServer::Start(raw->options.admin_listen,
                         {.page = [raw](std::string_view path) { return raw->Page(path); },
                          .bad_request = [bad]() mutable { bad.Add(); }},
                         {}));
  EM_ASSIGN_OR_RETURN(raw->stop, StopSignals::Subscribe());
  raw->watch_thread = std::thread([raw] { raw->WatchForStop(); });
  spdlog::info("started: admin port {}", raw->admin->address());
  return std::unique_ptr<Process>(new Process(std::move(impl)));
}

Process::~Process() {
  impl_->admin.reset();
  {
    std::lock_guard lock(impl_->mutex);
    impl_->closing = true;
  }
  impl_->changed.notify_all();
  impl_->stop->Wake();
  impl_->watch_thread.join();
  spdlog::info("stopped");
}

void Process::SetReady() { impl_->SetReadiness(""); }

void Process::SetNotReady(std::string reason) {
  impl_->SetReadiness(reason.empty() ? "no reason given" : std::move(reason));
}

bool Process::ready() const { return not_ready_reason().empty(); }

std::string Process::not_ready_reason() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->reason;
}

void Process::SetPeer(const PeerStatus& peer) {
  std::lock_guard lock(impl_->mutex);
  const auto [it, added] = impl_->peers.try_emplace({peer.role, peer.name});
  PeerEntry& entry = it->second;
  if (added || entry.status.state != peer.state) {
    entry.since = absl::Now();
    // A peer that was up and is lost is more than one that is not there yet.
    const bool lost = !added && peer.state == "down";
    spdlog::log(lost ? spdlog::level::warn : spdlog::level::info, "peer {} {} at {}: {}{}{}",
                peer.role, peer.name, peer.address, peer.state, peer.reason.empty() ? "" : ", ",
                peer.reason);
  }
  namespace metric = telemetry::metric;
  const auto labels = [&](const std::string& transport) {
    return telemetry::Metrics::Labels{
        {"role", peer.role}, {"peer", peer.name}, {"transport", transport}};
  };
  const std::string before = std::exchange(entry.status, peer).transport;
  if (!before.empty() && before != peer.transport) {
    impl_->metrics->RemoveGauge(metric::kPeerTransport, labels(before));
  }
  if (!peer.transport.empty()) {
    impl_->metrics->GetGauge(metric::kPeerTransport, labels(peer.transport)).Set(1);
  }
  impl_->metrics->GetGauge(telemetry::metric::kPeerUp, {{"role", peer.role}, {"peer", peer.name}})
      .Set(peer.state == "up" ? 1 : 0);
}

void Process::RemovePeer(const std::string& role, const std::string& name) {
  std::lock_guard lock(impl_->mutex);
  const auto it = impl_->peers.find({role, name});
  if (it == impl_->peers.end()) return;
  const std::string transport = it->second.status.transport;
  impl_->peers.erase(it);
  if (!transport.empty()) {
    impl_->metrics->RemoveGauge(telemetry::metric::kPeerTransport,
                                {{"role", role}, {"peer", name}, {"transport", transport}});
  }
  impl_->metrics->RemoveGauge(telemetry::metric::kPeerUp, {{"role", role}, {"peer", name}});
  spdlog::info("peer {} {}: gone", role, name);
}

void Process::AddStatusSection(std::string key, std::function<std::string()> json) {
  std::lock_guard lock(impl_->sections_mutex);
  impl_->sections[std::move(key)] = std::move(json);
}

void Process::RemoveStatusSection(const std::string& key) {
  std::lock_guard lock(impl_->sections_mutex);
  impl_->sections.erase(key);
}

void Process::OnDrain(std::function<void()> callback) {
  {
    std::lock_guard lock(impl_->mutex);
    if (!impl_->drained) {
      impl_->drain_callbacks.push_back(std::move(callback));
      return;
    }
  }
  callback();
}

bool Process::draining() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->draining;
}

void Process::RequestShutdown(const std::string& reason) {
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->shutdown_reason.empty()) impl_->shutdown_reason = reason.empty() ? "asked" : reason;
  }
  impl_->stop->Wake();
}

absl::Status Process::Announce(const std::string& grpc_address,
                               const std::map<std::string, std::string>& extra) {
  spdlog::info("listening: gRPC {}", grpc_address);
  if (impl_->options.announce_file.empty()) return absl::OkStatus();
  const StatusSnapshot self{
      .name = impl_->options.name, .role = impl_->options.role, .incarnation = impl_->incarnation};
  return WriteAtomically(impl_->options.announce_file,
                         AnnounceText(self, grpc_address, admin_address(), extra));
}

void Process::WaitForShutdown() {
  {
    std::unique_lock lock(impl_->mutex);
    impl_->changed.wait(lock, [this] { return impl_->drained; });
  }
  std::lock_guard lock(impl_->sections_mutex);
  impl_->sections.clear();
}

uint64_t Process::incarnation() const { return impl_->incarnation; }
std::string Process::admin_address() const { return impl_->admin->address(); }

std::string Process::Advertised(const std::string& address) const {
  const std::string& host = impl_->options.advertise_host;
  for (const std::string_view all : {"0.0.0.0:", "[::]:"}) {
    if (!address.starts_with(all)) continue;
    if (host.empty()) {
      spdlog::warn("{} is told to others as it is; say --advertise-host if they run elsewhere",
                   address);
      return address;
    }
    const bool ipv6 = host.find(':') != std::string::npos && host.front() != '[';
    return absl::StrCat(ipv6 ? "[" : "", host, ipv6 ? "]" : "", ":", address.substr(all.size()));
  }
  return address;
}
const ProcessOptions& Process::options() const { return impl_->options; }

}  // namespace expertmesh::lifecycle
