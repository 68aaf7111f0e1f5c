#include "router/core/placement.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "services/base/hash.h"

namespace expertmesh::router {
namespace {

bool Covers(const std::vector<base::ExpertRange>& experts, uint32_t begin, uint32_t end) {
  return std::any_of(experts.begin(), experts.end(), [&](const base::ExpertRange& r) {
    return r.begin <= begin && end <= r.end;
  });
}

}  // namespace

// Fixes the model on first sight: attention workers decide, else the first expert worker. A model with no
// worker left may be replaced by another.
bool Placement::Choose(const std::map<Membership::Key, Member>& members) {
  const auto usable = [](const Member& m) { return m.expert_count > 0 && !m.revision.empty(); };
  const Member* first = nullptr;
  for (Role role : {Role::kAttentionWorker, Role::kExpertWorker}) {
    for (const auto& [key, m] : members) {
      if (m.role != role || !usable(m)) continue;
      if (m.revision == revision_ && m.profile == profile_) return true;
      if (first == nullptr) first = &m;
    }
  }
  if (first == nullptr) return expert_count_ > 0;
  model_ = first->model;
  revision_ = first->revision;
  profile_ = first->profile;
  expert_count_ = first->expert_count;
  state_.reset();
  owner_of_group_.clear();
  return true;
}

std::map<std::string, Placement::Candidate> Placement::Candidates(
    const std::map<Membership::Key, Member>& members) {
  std::map<std::string, Candidate> candidates;
  mismatch_.clear();
  for (const auto& [key, m] : members) {
    if (m.role != Role::kExpertWorker) continue;
    if (m.revision != revision_ || m.profile != profile_ || m.expert_count != expert_count_) {
      absl::StrAppend(&mismatch_, mismatch_.empty() ? "" : "; ", m.name, " serves ", m.model,
                      " revision ", m.revision.substr(0, 12), " profile ", m.profile, ", the mesh ",
                      model_, " ", revision_.substr(0, 12), " ", profile_);
      continue;
    }
    if (!m.ready || m.draining) continue;
    Candidate& candidate = candidates[base::SliceName(m.experts)];
    candidate.experts = m.experts;
    candidate.replicas.push_back(m.name);
  }
  return candidates;
}

bool Placement::Update(const std::map<Membership::Key, Member>& members) {
  if (!Choose(members)) return false;
  const auto candidates = Candidates(members);
  std::vector<base::ExpertRange> hosted;
  for (const auto& [name, c] : candidates) {
    hosted.insert(hosted.end(), c.experts.begin(), c.experts.end());
  }
  missing_ = base::MissingFrom(hosted, expert_count_);

  // Candidates in a fixed order, so that equal memberships give equal maps.
  std::vector<std::string> order;
  for (const auto& [name, c] : candidates) order.push_back(name);
  std::sort(order.begin(), order.end(), [&](const std::string& a, const std::string& b) {
    const uint32_t first_a = candidates.at(a).experts.front().begin;
    const uint32_t first_b = candidates.at(b).experts.front().begin;
    return first_a != first_b ? first_a < first_b : a < b;
  });
  const uint32_t group_size = base::ExpertGroupSize(expert_count_);
  const uint32_t groups = (expert_count_ + group_size - 1) / group_size;
  std::vector<std::string> owner = owner_of_group_;
  owner.resize(groups);
  for (uint32_t g = 0; g < groups; ++g) {
    if (candidates.contains(owner[g])) continue;
    const uint32_t begin = g * group_size;
    const uint32_t end = std::min(begin + group_size, expert_count_);
    for (const std::string& name : order) {
      if (!Covers(candidates.at(name).experts, begin, end)) continue;
      owner[g] = name;
      break;
    }
  }
  bool term_lost = false;
  for (const auto& [key, m] : members) {
    if (m.last_epoch.term < std::max<uint64_t>(term_, 1) || m.last_epoch.term == term_) continue;
    term_ = m.last_epoch.term + 1;  // another router's life: outbid it
    number_ = 0;
    term_lost = true;
  }
  const bool complete = std::none_of(owner.begin(), owner.end(),
                                     [](const std::string& name) { return name.empty(); });
  const bool first = !state_ && complete && missing_.empty();
  const bool changed = first || (state_ && (owner != owner_of_group_ || term_lost));
  if (changed) Publish(owner);
  FillReplicas(candidates);
  return changed;
}

void Placement::Publish(const std::vector<std::string>& owner_of_group) {
  owner_of_group_ = owner_of_group;
  term_ = std::max<uint64_t>(term_, 1);
  PlacementState state;
  state.model = model_;
  state.revision = revision_;
  state.expert_count = expert_count_;
  state.group_size = base::ExpertGroupSize(expert_count_);
  std::string text = absl::StrCat(model_, "/", revision_, "/", expert_count_);
  for (size_t g = 0; g < owner_of_group.size(); ++g) {
    const std::string& name = owner_of_group[g];
    auto pool = std::find_if(state.pools.begin(), state.pools.end(),
                             [&](const PlacedPool& p) { return p.name == name; });
    if (pool == state.pools.end()) pool = state.pools.insert(pool, PlacedPool{name, {}, {}});
    const auto begin = static_cast<uint32_t>(g) * state.group_size;
    const uint32_t end = std::min(begin + state.group_size, expert_count_);
    if (!pool->experts.empty() && pool->experts.back().end == begin) {
      pool->experts.back().end = end;
    } else {
      pool->experts.push_back({begin, end});
    }
    absl::StrAppend(&text, "|", name);
  }
  state.epoch = {term_, ++number_, base::Hash64(text)};
  state_ = std::move(state);
}

void Placement::FillReplicas(const std::map<std::string, Candidate>& candidates) {
  if (!state_) return;
  for (PlacedPool& pool : state_->pools) {
    const auto it = candidates.find(pool.name);
    pool.replicas = it == candidates.end() ? std::vector<std::string>() : it->second.replicas;
  }
}

}  // namespace expertmesh::router
