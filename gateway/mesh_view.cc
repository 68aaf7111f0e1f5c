#include "gateway/mesh_view.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/expert_node.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"

namespace expertmesh::gateway {
namespace {

std::string RoleText(common::v1::Role role) {
  switch (role) {
    case common::v1::ROLE_ATTENTION_WORKER:
      return "attention-worker";
    case common::v1::ROLE_EXPERT_WORKER:
      return "expert-worker";
    case common::v1::ROLE_ENGRAM_STORE:
      return "engram-store";
    case common::v1::ROLE_GATEWAY:
      return "gateway";
    default:
      return "router";
  }
}

}  // namespace

void MeshView::OnView(const router::v1::View& view) {
  MeshSnapshot snapshot;
  for (const auto& member : view.members()) {
    const auto& hello = member.hello();
    if (hello.role() != common::v1::ROLE_ATTENTION_WORKER) continue;
    const auto& report = member.report();
    snapshot.workers.push_back({hello.name(), hello.address(), hello.model().model(),
                                hello.model().revision(), report.ready(), report.draining(), false,
                                report.load() + report.queued()});
  }
  snapshot.placed = view.has_placement();
  std::vector<base::ExpertRange> missing;
  for (const auto& range : view.missing_experts()) missing.push_back({range.begin(), range.end()});
  snapshot.missing_experts = base::SliceName(missing);
  const bool complete = snapshot.placed && PickWorker(snapshot, model_).ok();
  std::lock_guard lock(mutex_);
  seen_complete_ = seen_complete_ || complete;
  if (seen_complete_) {
    process_.SetReady();  // and stays so: requests get the reason
  } else {
    process_.SetNotReady(!snapshot.missing_experts.empty()
                             ? absl::StrCat("no worker hosts experts ", snapshot.missing_experts)
                             : "waiting for an attention worker to be ready");
  }
  snapshot_ = std::move(snapshot);
  ShowPeersLocked(view);
}

void MeshView::ShowPeersLocked(const router::v1::View& view) {
  std::set<std::string> seen;
  for (const auto& member : view.members()) {
    const auto& hello = member.hello();
    if (hello.role() == common::v1::ROLE_GATEWAY) continue;
    const std::string role = RoleText(hello.role());
    seen.insert(hello.name());
    peers_[hello.name()] = {role, hello.address()};
    process_.SetPeer({role, hello.name(), hello.address(), "up", ""});
  }
  for (const auto& [name, peer] : peers_) {
    if (seen.contains(name)) continue;
    process_.SetPeer({peer.first, name, peer.second, "down", "left the router's view"});
  }
}

void MeshView::OnRouter(const std::string& address, bool up, const std::string& reason) {
  process_.SetPeer({"router", address, address, up ? "up" : "down", up ? "" : reason});
}

absl::StatusOr<MeshView::Target> MeshView::Pick() {
  std::lock_guard lock(mutex_);
  if (!seen_complete_) {
    return base::Error(base::Reason::kNotReady,
                       absl::StrCat("the mesh is starting: ", process_.not_ready_reason()));
  }
  EM_ASSIGN_OR_RETURN(const WorkerInfo worker, PickWorker(snapshot_, model_));
  auto& channel = channels_[worker.address];
  if (!channel) channel = rpc::MakeChannel(worker.address);
  return Target{worker.name, worker.revision, channel};
}

void MeshView::MarkDown(const std::string& worker) {
  std::lock_guard lock(mutex_);
  for (WorkerInfo& w : snapshot_.workers) w.down = w.down || w.name == worker;
  const auto it = peers_.find(worker);
  if (it == peers_.end()) return;
  process_.SetPeer({it->second.first, worker, it->second.second, "down", "connection lost"});
}

std::string MeshView::revision() const {
  std::lock_guard lock(mutex_);
  return snapshot_.workers.empty() ? "" : snapshot_.workers.front().revision;
}

}  // namespace expertmesh::gateway
