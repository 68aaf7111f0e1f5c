#include "router/core/placement.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/hash.h"

namespace expertmesh::router {
namespace {

constexpr size_t kIssuedMax = 64;  // epochs remembered; older ones are believed to be ours

bool Covers(const std::vector<base::ExpertRange>& experts, base::ExpertRange group) {
  return std::any_of(experts.begin(), experts.end(), [&](const base::ExpertRange& r) {
    return r.begin <= group.begin && group.end <= r.end;
  });
}

bool HasModel(const Member& m) { return m.expert_count > 0 && !m.revision.empty(); }

std::string Describe(const std::string& model, const std::string& revision,
                     const std::string& profile, uint32_t expert_count) {
  return absl::StrCat(model, " revision ", revision.substr(0, 12), " profile ", profile, " with ",
                      expert_count, " experts");
}

}  // namespace

uint32_t Placement::group_count() const { return (expert_count_ + group_size_ - 1) / group_size_; }

base::ExpertRange Placement::Group(uint32_t group) const {
  const uint32_t begin = group * group_size_;
  return {begin, std::min(begin + group_size_, expert_count_)};
}

const Member* Placement::ChooseModel(const Members& members) const {
  const Member* first = nullptr;
  for (Role role : {Role::kAttentionWorker, Role::kExpertWorker}) {
    const Member* first_of_role = nullptr;
    for (const auto& [key, m] : members) {
      if (m.role != role || !HasModel(m)) continue;
      const bool current = m.revision == revision_ && m.profile == profile_;
      if (current && (state_ || first == nullptr)) return &m;
      if (first_of_role == nullptr || m.registered < first_of_role->registered) first_of_role = &m;
    }
    if (first == nullptr) first = first_of_role;
  }
  return first;
}

void Placement::SetModel(const Member& member) {
  if (member.revision == revision_ && member.profile == profile_) return;
  model_ = member.model;
  revision_ = member.revision;
  profile_ = member.profile;
  expert_count_ = member.expert_count;
  group_size_ = base::ExpertGroupSize(expert_count_);
  owners_.assign(group_count(), "");
  state_.reset();
}

Placement::Slices Placement::ServingSlices(const Members& members) {
  Slices slices;
  left_out_.clear();
  for (const auto& [key, m] : members) {
    const bool has_model =
        m.revision == revision_ && m.profile == profile_ && m.expert_count == expert_count_;
    if (m.role != Role::kExpertWorker && m.role != Role::kAttentionWorker) continue;
    if (!has_model) {
      left_out_.push_back(
          {m.name,
           absl::StrCat("it serves ", Describe(m.model, m.revision, m.profile, m.expert_count),
                        ", the mesh ", Describe(model_, revision_, profile_, expert_count_))});
      continue;
    }
    if (m.role != Role::kExpertWorker || !m.serving()) continue;
    Slice& slice = slices[base::SliceName(m.experts)];
    slice.experts = m.experts;
    slice.replicas.push_back(m.name);
  }
  return slices;
}

void Placement::FindMissing(const Slices& slices) {
  std::vector<base::ExpertRange> hosted;
  for (const auto& [name, slice] : slices) {
    hosted.insert(hosted.end(), slice.experts.begin(), slice.experts.end());
  }
  const auto gaps = base::MissingFrom(hosted, expert_count_);
  missing_.clear();
  const auto add = [this](base::ExpertRange range) {
    if (!missing_.empty() && missing_.back().end == range.begin) {
      missing_.back().end = range.end;
    } else {
      missing_.push_back(range);
    }
  };
  for (uint32_t g = 0; g < group_count(); ++g) {
    const base::ExpertRange group = Group(g);
    const auto covers = [&](const auto& entry) { return Covers(entry.second.experts, group); };
    if (std::any_of(slices.begin(), slices.end(), covers)) continue;
    bool named = false;
    for (const base::ExpertRange& gap : gaps) {
      const base::ExpertRange part{std::max(gap.begin, group.begin), std::min(gap.end, group.end)};
      if (part.begin >= part.end) continue;
      add(part);
      named = true;
    }
    if (!named) add(group);  // every expert is somewhere, but no slice has the group as a whole
  }
}

std::vector<std::string> Placement::Assign(const Slices& slices) const {
  // In a fixed order, so that equal memberships give equal maps.
  std::vector<const Slices::value_type*> order;
  for (const auto& entry : slices) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->second.experts.front().begin < b->second.experts.front().begin;
  });
  std::vector<std::string> owners = owners_;
  for (uint32_t g = 0; g < group_count(); ++g) {
    if (slices.contains(owners[g])) continue;
    const auto candidate = std::find_if(order.begin(), order.end(), [&](const auto* entry) {
      return Covers(entry->second.experts, Group(g));
    });
    if (candidate != order.end()) owners[g] = (*candidate)->first;
  }
  return owners;
}

bool Placement::OutbidOthers(const Members& members) {
  for (const auto& [key, m] : members) {
    const EpochId& seen = m.last_epoch;
    if (seen.term < term_ || seen.term == 0) continue;
    const bool forgotten = !issued_.empty() && seen.number < issued_.begin()->first;
    const auto ours = issued_.find(seen.number);
    if (seen.term == term_ &&
        (forgotten || (ours != issued_.end() && ours->second == seen.content_hash))) {
      continue;
    }
    foreign_term_ = std::max(foreign_term_, seen.term);
  }
  return term_ > 0 && foreign_term_ >= term_;
}

bool Placement::Update(const Members& members) {
  if (const Member* member = ChooseModel(members)) SetModel(*member);
  const bool outbid = OutbidOthers(members);
  if (expert_count_ == 0) return false;
  const Slices slices = ServingSlices(members);
  FindMissing(slices);
  std::vector<std::string> owners = Assign(slices);
  const bool issue = state_ ? outbid || owners != owners_ : missing_.empty();
  if (issue) Issue(std::move(owners));
  if (state_) {
    for (PlacedPool& pool : state_->pools) {
      const auto slice = slices.find(pool.name);
      pool.replicas = slice == slices.end() ? std::vector<std::string>() : slice->second.replicas;
    }
  }
  return issue;
}

void Placement::Issue(std::vector<std::string> owners) {
  owners_ = std::move(owners);
  PlacementState state;
  state.model = model_;
  state.revision = revision_;
  state.expert_count = expert_count_;
  state.group_size = group_size_;
  std::string map = absl::StrCat(revision_, "\n", expert_count_, "\n");
  for (uint32_t g = 0; g < group_count(); ++g) {
    absl::StrAppend(&map, owners_[g], "\n");
    const base::ExpertRange group = Group(g);
    auto pool = std::find_if(state.pools.begin(), state.pools.end(),
                             [&](const PlacedPool& p) { return p.name == owners_[g]; });
    if (pool == state.pools.end()) pool = state.pools.insert(pool, PlacedPool{.name = owners_[g]});
    if (!pool->experts.empty() && pool->experts.back().end == group.begin) {
      pool->experts.back().end = group.end;
    } else {
      pool->experts.push_back(group);
    }
  }
  if (term_ == 0 || foreign_term_ >= term_) {
    term_ = foreign_term_ + 1;
    number_ = 0;
    issued_.clear();
  }
  state.epoch = {term_, ++number_, base::Hash64(map)};
  issued_[number_] = state.epoch.content_hash;
  if (issued_.size() > kIssuedMax) issued_.erase(issued_.begin());
  state_ = std::move(state);
}

}  // namespace expertmesh::router
