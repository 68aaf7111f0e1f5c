// What the gateway knows of the mesh: the router's view, who may answer a request, channels to them.
#pragma once

#include <grpcpp/channel.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "expertmesh/router/v1/router.pb.h"
#include "gateway/core/worker_picker.h"
#include "services/lifecycle/process.h"

namespace expertmesh::gateway {

/// Thread-safe.
class MeshView {
 public:
  MeshView(std::string model, lifecycle::Process& process)
      : model_(std::move(model)), process_(process) {}

  /// RouterClient's callbacks.
  void OnView(const router::v1::View& view);
  void OnRouter(const std::string& address, bool up, const std::string& reason);

  /// A worker for one request, or why there is none now.
  struct Target {
    std::string worker;
    std::string revision;
    std::shared_ptr<grpc::Channel> channel;
  };
  absl::StatusOr<Target> Pick();
  /// The worker's connection failed: others are preferred until the next view.
  void MarkDown(const std::string& worker);
  std::string revision() const;

 private:
  void ShowPeersLocked(const router::v1::View& view);

  const std::string model_;
  lifecycle::Process& process_;
  mutable std::mutex mutex_;
  MeshSnapshot snapshot_;                                           // guarded by mutex_
  bool seen_complete_ = false;                                      // guarded by mutex_
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_;  // guarded by mutex_; by address
  std::map<std::string, std::pair<std::string, std::string>> peers_;  // guarded by mutex_
};

}  // namespace expertmesh::gateway
