#include "gateway/mesh_view.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/expert_node.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"

namespace expertmesh::gateway {

using base::Error;
using base::Reason;

namespace {

constexpr size_t kDepartedMax = 256;  // peers that left and are still shown
constexpr char kAttentionRole[] = "attention-worker";

std::string RoleText(common::v1::Role role) {
  switch (role) {
    case common::v1::ROLE_ATTENTION_WORKER:
      return kAttentionRole;
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

std::string SliceText(const router::v1::View& view) {
  std::vector<base::ExpertRange> missing;
  for (const auto& range : view.missing_experts()) missing.push_back({range.begin(), range.end()});
  return base::SliceName(missing);
}

}  // namespace

void MeshView::OnView(const router::v1::View& view) {
  Lost lost;
  {
    std::lock_guard lock(mutex_);
    if (placed_ && !view.has_placement()) return;
    placed_ = view.has_placement();
    TakeWorkersLocked(view);
    lost = TakeRunningLocked(view);
    TakePeersLocked(view);
    CheckLinksLocked();
    ShowLinksLocked();
    UpdateReadinessLocked();
  }
  for (const auto& calls : lost) {
    calls->Lose(Error(Reason::kPeerLost, "it left the router's view"));
  }
}

void MeshView::TakeWorkersLocked(const router::v1::View& view) {
  snapshot_.workers.clear();
  std::map<std::string, Link> links;
  for (const auto& member : view.members()) {
    const auto& hello = member.hello();
    if (hello.role() != common::v1::ROLE_ATTENTION_WORKER) continue;
    const auto& report = member.report();
    WorkerInfo& worker = snapshot_.workers.emplace_back();
    worker.name = hello.name();
    worker.incarnation = hello.incarnation();
    worker.address = hello.address();
    worker.model = hello.model().model();
    worker.revision = hello.model().revision();
    worker.profile = hello.profile();
    worker.ready = report.ready();
    worker.draining = report.draining();
    worker.load = report.load() + report.queued();
    worker_seen_ = worker_seen_ || (worker.ready && worker.model == model_);
    const auto known = links_.find(worker.address);
    links[worker.address] =
        known == links_.end() ? Link{rpc::MakeChannel(worker.address)} : known->second;
  }
  links_ = std::move(links);
  snapshot_.missing_experts = SliceText(view);
}

MeshView::Lost MeshView::TakeRunningLocked(const router::v1::View& view) {
  std::set<WorkerKey> here;
  std::set<std::string> names;
  for (const WorkerInfo& worker : snapshot_.workers) {
    here.emplace(worker.name, worker.incarnation);
    names.insert(worker.name);
    Running& running = running_[{worker.name, worker.incarnation}];
    if (running.calls == nullptr) running.calls = std::make_shared<WorkerCalls>(worker.name);
    running.router = view.router_incarnation();
  }
  Lost lost;
  for (auto it = running_.begin(); it != running_.end();) {
    const auto& [key, running] = *it;
    const bool replaced = !here.contains(key) && names.contains(key.first);
    const bool left = !here.contains(key) && running.router == view.router_incarnation();
    const bool idle = !here.contains(key) && running.calls.use_count() == 1;
    if (replaced || left) lost.push_back(running.calls);
    it = replaced || left || idle ? running_.erase(it) : std::next(it);
  }
  return lost;
}

void MeshView::TakePeersLocked(const router::v1::View& view) {
  std::set<PeerKey> here;
  for (const auto& member : view.members()) {
    const auto& hello = member.hello();
    if (hello.role() == common::v1::ROLE_GATEWAY) continue;
    const PeerKey key(RoleText(hello.role()), hello.name());
    here.insert(key);
    peers_[key] = {hello.address(), true, 0};
    if (key.first == kAttentionRole) continue;  // up if our connection is
    process_.SetPeer({key.first, key.second, hello.address(), "up", ""});
  }
  for (auto& [key, peer] : peers_) {
    if (!peer.member || here.contains(key)) continue;
    peer.member = false;
    peer.left_at = ++departures_;
    process_.SetPeer({key.first, key.second, peer.address, "down", "left the router's view"});
  }
  ForgetPeersLocked();
}

void MeshView::ForgetPeersLocked() {
  for (;;) {
    auto oldest = peers_.end();
    size_t departed = 0;
    for (auto it = peers_.begin(); it != peers_.end(); ++it) {
      if (it->second.member) continue;
      ++departed;
      if (oldest == peers_.end() || it->second.left_at < oldest->second.left_at) oldest = it;
    }
    if (departed <= kDepartedMax) return;
    process_.RemovePeer(oldest->first.first, oldest->first.second);
    peers_.erase(oldest);
  }
}

void MeshView::CheckConnections() {
  std::lock_guard lock(mutex_);
  CheckLinksLocked();
  ShowLinksLocked();
}

// Asking for the state also makes an idle channel connect. Between two attempts it is neither
// failed nor ready: then the last word counts.
void MeshView::CheckLinksLocked() {
  for (auto& [address, link] : links_) {
    const grpc_connectivity_state state = link.channel->GetState(true);
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) link.down = true;
    if (state == GRPC_CHANNEL_READY) link.down = false;
  }
  for (WorkerInfo& worker : snapshot_.workers) worker.down = links_[worker.address].down;
}

void MeshView::ShowLinksLocked() {
  for (const WorkerInfo& worker : snapshot_.workers) {
    process_.SetPeer({kAttentionRole, worker.name, worker.address, worker.down ? "down" : "up",
                      worker.down ? "cannot be reached" : ""});
  }
}

void MeshView::UpdateReadinessLocked() {
  if (placed_ && worker_seen_) {
    process_.SetReady();  // and stays so: requests get the reason
  } else if (!snapshot_.missing_experts.empty()) {
    process_.SetNotReady(absl::StrCat("no worker hosts experts ", snapshot_.missing_experts));
  } else if (!placed_) {
    process_.SetNotReady("no placement yet: waiting for expert workers");
  } else {
    process_.SetNotReady(absl::StrCat("no attention worker of model ", model_, " is ready yet"));
  }
}

void MeshView::OnRouter(const std::string& address, bool up, const std::string& reason) {
  process_.SetPeer({"router", address, address, up ? "up" : "down", up ? "" : reason});
}

absl::StatusOr<MeshView::Target> MeshView::Pick() {
  if (process_.draining()) {
    return Error(Reason::kDraining, "this gateway is shutting down; try another");
  }
  std::lock_guard lock(mutex_);
  if (!placed_ || !worker_seen_) {
    return Error(Reason::kNotReady,
                 absl::StrCat("the mesh is starting: ", process_.not_ready_reason()));
  }
  CheckLinksLocked();
  EM_ASSIGN_OR_RETURN(const size_t index, PickWorker(snapshot_, model_));
  WorkerInfo& worker = snapshot_.workers[index];
  ++worker.load;  // until the next view says better
  return Target{worker.name, worker.revision, worker.profile, links_[worker.address].channel,
                running_[{worker.name, worker.incarnation}].calls};
}

MeshView::Target MeshView::Any() const {
  std::lock_guard lock(mutex_);
  const auto it = std::find_if(snapshot_.workers.begin(), snapshot_.workers.end(),
                               [&](const WorkerInfo& worker) { return worker.model == model_; });
  return it == snapshot_.workers.end() ? Target{}
                                       : Target{it->name, it->revision, it->profile, {}, {}};
}

}  // namespace expertmesh::gateway
