// A mesh of real processes on Unix sockets in a temporary directory, for tests. Waits on events
// (files, views, process ends), never on time.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "expertmesh/router/v1/router.pb.h"
#include "services/rpc/router_client.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::test_support {

inline constexpr std::chrono::seconds kPatience(60);

struct MeshSpec {
  std::string model;  // directory
  std::string profile = "bf16";
  std::vector<std::string> slices;  // one expert worker each; empty = inproc
  std::string transport = "auto";   // of attention and expert workers, if there are slices
  int attention_threads = 1;
  int expert_threads = 1;
  std::vector<std::string> attention_flags;
  std::vector<std::string> overrides = {};  // --override of every process with a model
  bool gateway = false;
  bool engram = false;
  int engram_replicas = 1;  // "engram", "engram-1", …, each with tables of its own
};

class LocalMesh {
 public:
  /// Starts everything; WaitReady before use.
  explicit LocalMesh(const MeshSpec& spec);
  ~LocalMesh();

  /// Until every process is ready by the router's view; false with the reasons on stderr otherwise.
  bool WaitReady();
  /// Until `watcher` shows `peer` as up: the router's view does not say that they are connected.
  bool WaitPeer(const std::string& watcher, const std::string& peer) const;
  /// Until `condition` holds for the router's newest view.
  bool WaitView(const std::function<bool(const router::v1::View&)>& condition,
                std::chrono::milliseconds timeout = kPatience);

  std::string Address(const std::string& name) const;  // gRPC
  std::string AdminAddress(
      const std::string& name) const;  // "127.0.0.1:port", from the announce file
  std::string HttpAddress() const;     // of the gateway
  ChildProcess& process(const std::string& name) { return processes_.at(name); }
  /// Starts a killed process again, with the same flags.
  void Restart(const std::string& name);
  const TempDir& dir() const { return dir_; }

 private:
  void Start(const std::string& binary, const std::string& name, std::vector<std::string> flags);
  std::string Announced(const std::string& name, const std::string& key) const;

  TempDir dir_;
  size_t members_ = 0;
  std::map<std::string, ChildProcess> processes_;
  std::map<std::string, std::vector<std::string>> commands_;
  std::mutex mutex_;
  std::condition_variable changed_;
  router::v1::View view_;  // guarded by mutex_
  std::unique_ptr<rpc::RouterClient> observer_;
};

/// GET of an admin page; "" if nobody answers.
std::string HttpGet(const std::string& address, const std::string& path);

/// One Generate call, to its end.
struct Generated {
  absl::Status status;
  std::vector<uint32_t> tokens;
  std::vector<uint64_t> logits_hashes;
  std::vector<float> logits;  // [tokens, vocab]; only with return_logits
  std::vector<uint64_t> state_hashes;
};
Generated Generate(inference::v1::InferenceService::Stub& stub,
                   const inference::v1::GenerateRequest& request);

}  // namespace expertmesh::test_support
