#include "attention-worker/router_link.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Reason;

namespace {

template <class Ranges>
std::vector<base::ExpertRange> ToRanges(const Ranges& ranges) {
  std::vector<base::ExpertRange> out;
  for (const auto& r : ranges) out.push_back({r.begin(), r.end()});
  return out;
}

constexpr char kExpertRole[] = "expert-worker";

}  // namespace

PlacementView ToPlacementView(const router::v1::View& view) {
  PlacementView placement;
  if (!view.has_placement()) return placement;
  const auto& from = view.placement();
  placement.term = from.epoch().term();
  placement.number = from.epoch().number();
  placement.content_hash = from.epoch().content_hash();
  placement.expert_count = from.expert_count();
  std::map<std::string, const router::v1::Hello*> experts;
  for (const auto& member : view.members()) {
    if (member.hello().role() != common::v1::ROLE_EXPERT_WORKER) continue;
    if (member.report().draining()) continue;
    experts[member.hello().name()] = &member.hello();
  }
  for (const auto& from_pool : from.pools()) {
    Pool pool;
    pool.name = from_pool.name();
    pool.experts = ToRanges(from_pool.experts());
    for (const std::string& name : from_pool.replicas()) {
      const auto it = experts.find(name);
      if (it == experts.end()) continue;
      pool.replicas.push_back(
          {name, it->second->incarnation(), it->second->address(), it->second->frames_address()});
    }
    placement.pools.push_back(std::move(pool));
  }
  return placement;
}

std::vector<EngramStoreAddress> ToEngramStores(const router::v1::View& view,
                                               const std::string& revision, size_t first) {
  std::vector<EngramStoreAddress> stores;
  for (const auto& member : view.members()) {
    const auto& hello = member.hello();
    if (hello.role() != common::v1::ROLE_ENGRAM_STORE || !member.report().ready() ||
        member.report().draining()) {
      continue;
    }
    const std::string& theirs = hello.model().revision();
    if (!theirs.empty() && theirs != revision) continue;
    stores.push_back({hello.name(), hello.incarnation(), hello.address()});
  }
  if (!stores.empty()) {
    const auto begin = static_cast<ptrdiff_t>(first % stores.size());
    std::rotate(stores.begin(), stores.begin() + begin, stores.end());
  }
  return stores;
}

void RouterLink::OnView(const router::v1::View& view) {
  const bool ours = !view.has_placement() || view.placement().model().revision() == revision_;
  if (!ours) {
    process_.SetNotReady(absl::StrCat("the placement is for revision ",
                                      view.placement().model().revision(), ", this worker has ",
                                      revision_));
    return;
  }
  const PlacementView placement = ToPlacementView(view);
  const std::string missing = base::SliceName(ToRanges(view.missing_experts()));
  bool placed = false;
  if (stores_ != nullptr) stores_->SetStores(ToEngramStores(view, revision_, first_store_));
  const bool remembers = stores_ == nullptr || !stores_->stores().empty();
  {
    std::lock_guard lock(mutex_);
    ShowMembersLocked(view);
    missing_ = missing;
    placed_ = placed_ || (placement.complete() && remembers);
    placed = placed_;
  }
  // A router that has just come back has none before all workers are with it again: until then the
  // one that was is as good.
  if (view.has_placement()) experts_.SetView(placement);
  if (placed) {
    process_.SetReady();  // once ready it stays ready: requests get the reason instead
  } else {
    process_.SetNotReady(!missing.empty() ? absl::StrCat("no worker hosts experts ", missing)
                         : remembers      ? "no placement yet"
                                          : "no Engram store has the tables of this model");
  }
}

void RouterLink::OnInproc(const PlacementView& view) {
  {
    std::lock_guard lock(mutex_);
    placed_ = true;
  }
  experts_.SetView(view);
  process_.SetReady();
}

void RouterLink::ShowMembersLocked(const router::v1::View& view) {
  std::set<std::string> seen;
  for (const auto& member : view.members()) {
    const auto& hello = member.hello();
    seen.insert(hello.name());
    if (hello.role() == common::v1::ROLE_EXPERT_WORKER) {
      addresses_[hello.name()] = hello.address();
      const auto transport = connected_.find(hello.name());
      const bool up = transport != connected_.end();
      process_.SetPeer({kExpertRole, hello.name(), hello.address(), up ? "up" : "down",
                        up ? "" : "not connected yet", up ? transport->second : ""});
    } else if (hello.role() == common::v1::ROLE_ENGRAM_STORE) {
      others_[hello.name()] = {"engram-store", hello.address()};
      process_.SetPeer({"engram-store", hello.name(), hello.address(), "up", ""});
    }
  }
  for (const auto& [name, address] : addresses_) {
    if (seen.contains(name)) continue;
    // The connection may well stand, as when a router restarts.
    const auto transport = connected_.find(name);
    const bool up = transport != connected_.end();
    process_.SetPeer({kExpertRole, name, address, up ? "up" : "down", "left the router's view",
                      up ? transport->second : ""});
  }
  for (const auto& [name, role] : others_) {
    if (seen.contains(name)) continue;
    process_.SetPeer({role.first, name, role.second, "down", "left the router's view"});
  }
}

void RouterLink::OnRouter(const std::string& address, bool up, const std::string& reason) {
  process_.SetPeer({"router", address, address, up ? "up" : "down", up ? "" : reason});
}

void RouterLink::OnPeer(const std::string& worker, bool up, const std::string& why) {
  experts_.SetPeerUp(worker, up);
  std::lock_guard lock(mutex_);
  if (up) {
    connected_[worker] = why;
  } else {
    connected_.erase(worker);
  }
  process_.SetPeer(
      {kExpertRole, worker, addresses_[worker], up ? "up" : "down", up ? "" : why, up ? why : ""});
}

absl::Status RouterLink::Admit() const {
  std::lock_guard lock(mutex_);
  if (process_.draining()) return Error(Reason::kDraining, "this worker is draining");
  if (!placed_) return Error(Reason::kNotReady, process_.not_ready_reason());
  if (stores_ != nullptr && stores_->stores().empty()) {
    return Error(Reason::kEngramUnavailable, "no live Engram store has the tables of this model");
  }
  if (missing_.empty()) return absl::OkStatus();
  return Error(Reason::kExpertsUnavailable, absl::StrCat("no live worker hosts experts ", missing_),
               {{"experts", missing_}});
}

}  // namespace expertmesh::attention_worker
