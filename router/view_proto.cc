#include "router/view_proto.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::router {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kTextBytesMax = 256;    // name, addresses, model, revision, profile, …
constexpr uint32_t kExpertsMax = 65536;  // expert ids are u16 on the wire
constexpr uint64_t kTermMax = 1ull << 62;

template <class Field>
void SetRanges(const std::vector<base::ExpertRange>& from, Field* to) {
  for (const base::ExpertRange& r : from) {
    auto* range = to->Add();
    range->set_begin(r.begin);
    range->set_end(r.end);
  }
}

absl::Status CheckTexts(const v1::Hello& hello) {
  const std::pair<const char*, const std::string&> texts[] = {
      {"name", hello.name()},
      {"address", hello.address()},
      {"admin_address", hello.admin_address()},
      {"frames_address", hello.frames_address()},
      {"model.model", hello.model().model()},
      {"model.revision", hello.model().revision()},
      {"profile", hello.profile()},
      {"fingerprint", hello.fingerprint()}};
  for (const auto& [field, text] : texts) {
    if (text.size() <= kTextBytesMax) continue;
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("Hello.", field, " is longer than ", kTextBytesMax, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status TakeExperts(const v1::Hello& hello, Member& member) {
  if (hello.expert_count() > kExpertsMax) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("Hello.expert_count is above ", kExpertsMax));
  }
  member.expert_count = hello.expert_count();
  for (const auto& range : hello.experts()) {
    const uint32_t at = member.experts.empty() ? 0 : member.experts.back().end;
    if (range.begin() < at || range.end() <= range.begin() || range.end() > member.expert_count) {
      return Error(Reason::kInvalidArgument,
                   "Hello.experts must be ascending, disjoint ranges below expert_count");
    }
    if (!member.experts.empty() && range.begin() == at) {
      member.experts.back().end = range.end();  // neighbours are one range: the same slice name
    } else {
      member.experts.push_back({range.begin(), range.end()});
    }
  }
  if (member.role == Role::kExpertWorker && member.experts.empty()) {
    return Error(Reason::kInvalidArgument, "an expert worker hosts at least one expert");
  }
  return absl::OkStatus();
}

void SetMember(const Member& m, base::Instant now, v1::Member* to) {
  auto* hello = to->mutable_hello();
  hello->set_role(ToProto(m.role));
  hello->set_name(m.name);
  hello->set_incarnation(m.incarnation);
  hello->set_address(m.address);
  hello->set_admin_address(m.admin_address);
  hello->set_frames_address(m.frames_address);
  hello->mutable_model()->set_model(m.model);
  hello->mutable_model()->set_revision(m.revision);
  hello->set_profile(m.profile);
  hello->set_fingerprint(m.fingerprint);
  SetRanges(m.experts, hello->mutable_experts());
  hello->set_expert_count(m.expert_count);
  auto* report = to->mutable_report();
  report->set_ready(m.report.ready);
  report->set_draining(m.report.draining);
  report->set_load(m.report.load);
  report->set_queued(m.report.queued);
  report->set_reason(m.report.reason);
  to->set_registered_ms(static_cast<uint64_t>((now - m.registered).count()) / 1000);
}

void SetPlacement(const PlacementState& state, v1::Placement* to) {
  to->mutable_epoch()->set_term(state.epoch.term);
  to->mutable_epoch()->set_number(state.epoch.number);
  to->mutable_epoch()->set_content_hash(state.epoch.content_hash);
  to->mutable_model()->set_model(state.model);
  to->mutable_model()->set_revision(state.revision);
  to->set_expert_count(state.expert_count);
  to->set_group_size(state.group_size);
  for (const PlacedPool& from : state.pools) {
    auto* pool = to->add_pools();
    pool->set_name(from.name);
    SetRanges(from.experts, pool->mutable_experts());
    for (const std::string& replica : from.replicas) pool->add_replicas(replica);
  }
}

}  // namespace

// v1::Role counts from 1, in the same order.
Role FromProto(common::v1::Role role) { return static_cast<Role>(static_cast<int>(role) - 1); }
common::v1::Role ToProto(Role role) {
  return static_cast<common::v1::Role>(static_cast<int>(role) + 1);
}

absl::StatusOr<Member> FromHello(const v1::Hello& hello) {
  if (hello.role() < common::v1::ROLE_GATEWAY || hello.role() > common::v1::ROLE_ENGRAM_STORE) {
    return Error(Reason::kInvalidArgument, "Hello.role is not a role of this version");
  }
  if (hello.name().empty() || hello.incarnation() == 0) {
    return Error(Reason::kInvalidArgument, "Hello needs a name and an incarnation that is not 0");
  }
  EM_RETURN_IF_ERROR(CheckTexts(hello));
  const auto& epoch = hello.last_epoch();
  if (epoch.term() > kTermMax) {
    return Error(Reason::kInvalidArgument, "Hello.last_epoch.term is above 2^62");
  }
  Member m;
  m.role = FromProto(hello.role());
  EM_RETURN_IF_ERROR(TakeExperts(hello, m));
  m.name = hello.name();
  m.incarnation = hello.incarnation();
  m.address = hello.address();
  m.admin_address = hello.admin_address();
  m.frames_address = hello.frames_address();
  m.model = hello.model().model();
  m.revision = hello.model().revision();
  m.profile = hello.profile();
  m.fingerprint = hello.fingerprint();
  m.last_epoch = {epoch.term(), epoch.number(), epoch.content_hash()};
  return m;
}

Report FromReport(const v1::Report& report) {
  return {.ready = report.ready(),
          .draining = report.draining(),
          .load = std::min<uint64_t>(report.load(), UINT32_MAX),
          .queued = std::min<uint64_t>(report.queued(), UINT32_MAX),
          .reason = report.reason().substr(0, kTextBytesMax)};
}

v1::View ToView(const Members& members, const Placement& placement, base::Instant now) {
  v1::View view;
  for (const auto& [key, m] : members) SetMember(m, now, view.add_members());
  if (placement.state()) SetPlacement(*placement.state(), view.mutable_placement());
  SetRanges(placement.missing(), view.mutable_missing_experts());
  return view;
}

}  // namespace expertmesh::router
