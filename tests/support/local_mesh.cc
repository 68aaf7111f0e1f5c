#include "tests/support/local_mesh.h"

#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "services/rpc/status.h"
#include "tests/support/http_client.h"

namespace expertmesh::test_support {

LocalMesh::LocalMesh(const MeshSpec& spec) {
  const std::vector<std::string> router = {"--router", Address("router")};
  const auto with_router = [&](std::vector<std::string> flags) {
    flags.insert(flags.end(), router.begin(), router.end());
    for (const std::string& word : spec.overrides) flags.insert(flags.end(), {"--override", word});
    return flags;
  };
  Start("expertmesh-router", "router", {});
  for (size_t i = 0; i < spec.slices.size(); ++i) {
    Start("expertmesh-expert-worker", "expert-" + std::to_string(i),
          with_router({"--model", spec.model, "--profile", spec.profile, "--slice", spec.slices[i],
                       "--threads", std::to_string(spec.expert_threads), "--transport",
                       spec.transport}));
  }
  for (int i = 0; spec.engram && i < spec.engram_replicas; ++i) {
    const std::string name = i == 0 ? "engram" : "engram-" + std::to_string(i);
    Start("expertmesh-engram-store", name,
          with_router({"--data", dir_ / (name + "-data"), "--model", spec.model}));
  }
  std::vector<std::string> attention =
      with_router({"--model", spec.model, "--profile", spec.profile, "--debug-api", "--threads",
                   std::to_string(spec.attention_threads), "--transport",
                   spec.slices.empty() ? "inproc" : spec.transport});
  attention.insert(attention.end(), spec.attention_flags.begin(), spec.attention_flags.end());
  Start("expertmesh-attention-worker", "attention", std::move(attention));
  if (spec.gateway) {
    Start("expertmesh-gateway", "gateway",
          with_router({"--model", spec.model, "--http", "127.0.0.1:0"}));
  }
  members_ = processes_.size() - 1;
  router::v1::Hello hello;
  hello.set_role(common::v1::ROLE_GATEWAY);
  hello.set_name("test-observer");
  hello.set_incarnation(1);
  observer_ = std::make_unique<rpc::RouterClient>(
      std::vector<std::string>{Address("router")}, hello,
      [this](const router::v1::View& view) {
        std::lock_guard lock(mutex_);
        view_ = view;
        changed_.notify_all();
      },
      [](const std::string&, bool, const std::string&) {});
  router::v1::Report report;
  report.set_ready(true);
  observer_->Report(report);
}

LocalMesh::~LocalMesh() {
  observer_->Stop();
  for (auto& [name, process] : processes_) process.Signal(SIGTERM);
  for (auto& [name, process] : processes_) process.Wait(kPatience);
}

void LocalMesh::Start(const std::string& binary, const std::string& name,
                      std::vector<std::string> flags) {
  std::vector<std::string> argv = {binary,
                                   "--name",
                                   name,
                                   "--listen",
                                   Address(name),
                                   "--announce-file",
                                   dir_ / (name + ".json"),
                                   "--drain-seconds",
                                   "1"};
  argv.insert(argv.end(), flags.begin(), flags.end());
  commands_[name] = argv;
  processes_.emplace(name, ChildProcess(std::move(argv), dir_ / (name + ".log")));
}

void LocalMesh::Restart(const std::string& name) {
  processes_.erase(name);
  std::filesystem::remove(dir_ / (name + ".json"));
  processes_.emplace(name, ChildProcess(commands_.at(name), dir_ / (name + ".log")));
}

std::string LocalMesh::Address(const std::string& name) const {
  return "unix:" + (dir_ / (name + ".sock"));
}

bool LocalMesh::WaitReady() {
  const bool ready = WaitView([&](const router::v1::View& view) {
    const auto count = std::count_if(
        view.members().begin(), view.members().end(), [](const router::v1::Member& m) {
          return m.report().ready() && m.hello().name() != "test-observer";
        });
    return static_cast<size_t>(count) == members_;
  });
  if (ready) return true;
  for (auto& [name, process] : processes_) {
    std::fprintf(stderr, "--- %s\n%s\n", name.c_str(), process.Log().c_str());
  }
  return false;
}

bool LocalMesh::WaitPeer(const std::string& watcher, const std::string& peer) const {
  const std::string up =
      "\"name\":\"" + peer + "\",\"address\":\"" + Address(peer) + "\",\"state\":\"up\"";
  const std::string admin = AdminAddress(watcher);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  do {
    if (HttpGet(admin, "/statusz").find(up) != std::string::npos) return true;
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

bool LocalMesh::WaitView(const std::function<bool(const router::v1::View&)>& condition,
                         std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return condition(view_); });
}

// The announce file is flat JSON that we write ourselves.
std::string LocalMesh::Announced(const std::string& name, const std::string& key) const {
  const std::string text = WaitForFile(dir_ / (name + ".json"), kPatience).value_or("");
  const std::string mark = "\"" + key + "\":\"";
  const size_t at = text.find(mark);
  if (at == std::string::npos) return "";
  const size_t begin = at + mark.size();
  return text.substr(begin, text.find('"', begin) - begin);
}

std::string LocalMesh::AdminAddress(const std::string& name) const {
  return Announced(name, "admin_address");
}
std::string LocalMesh::HttpAddress() const { return Announced("gateway", "http_address"); }

std::string HttpGet(const std::string& address, const std::string& path) {
  const HttpResponse response =
      HttpExchange(address, "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  return response.header + "\r\n\r\n" + response.body;
}

Generated Generate(inference::v1::InferenceService::Stub& stub,
                   const inference::v1::GenerateRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(5));
  const auto reader = stub.Generate(&context, request);
  Generated out;
  inference::v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_token()) {
      out.tokens.push_back(response.token().id());
      out.logits_hashes.push_back(response.token().logits_hash());
      const auto& logits = response.token().logits();
      out.logits.insert(out.logits.end(), logits.begin(), logits.end());
    } else if (response.has_finished()) {
      out.state_hashes.assign(response.finished().state_hashes().begin(),
                              response.finished().state_hashes().end());
    }
  }
  out.status = rpc::FromGrpcStatus(reader->Finish());
  return out;
}

}  // namespace expertmesh::test_support
