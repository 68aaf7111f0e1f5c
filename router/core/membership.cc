#include "router/core/membership.h"

#include <utility>

namespace expertmesh::router {

std::string RoleName(Role role) {
  switch (role) {
    case Role::kGateway:
      return "gateway";
    case Role::kRouter:
      return "router";
    case Role::kAttentionWorker:
      return "attention-worker";
    case Role::kExpertWorker:
      return "expert-worker";
    case Role::kEngramStore:
      return "engram-store";
  }
  return "unknown";
}

std::map<Membership::Key, Member>::iterator Membership::Find(uint64_t stream) {
  auto it = members_.begin();
  while (it != members_.end() && it->second.stream != stream) ++it;
  return it;
}

MembershipChange Membership::Hello(uint64_t stream, Member member, base::Instant now) {
  MembershipChange change;
  change.view_changed = true;
  member.stream = stream;
  member.registered = now;
  member.last_report = now;
  const Key key{member.role, member.name};
  const auto it = members_.find(key);
  if (it != members_.end() && it->second.stream != stream) change.close_stream = it->second.stream;
  members_[key] = std::move(member);
  return change;
}

MembershipChange Membership::OnReport(uint64_t stream, const Report& report, base::Instant now) {
  MembershipChange change;
  const auto it = Find(stream);
  if (it == members_.end()) return change;
  Member& m = it->second;
  change.view_changed = m.ready != report.ready || m.draining != report.draining ||
                        m.load != report.load || m.queued != report.queued ||
                        m.reason != report.reason;
  m.ready = report.ready;
  m.draining = report.draining;
  m.load = report.load;
  m.queued = report.queued;
  m.reason = report.reason;
  m.last_report = now;
  return change;
}

MembershipChange Membership::StreamEnded(uint64_t stream, const std::string& why) {
  MembershipChange change;
  const auto it = Find(stream);
  if (it == members_.end()) return change;  // replaced by a newer incarnation
  const Member& m = it->second;
  change.departed.push_back({m.role, m.name, m.address, why});
  members_.erase(it);
  change.view_changed = true;
  return change;
}

MembershipChange Membership::Tick(base::Instant now) {
  MembershipChange change;
  for (auto it = members_.begin(); it != members_.end();) {
    const Member& m = it->second;
    if (now - m.last_report < kExpiry) {
      ++it;
      continue;
    }
    change.view_changed = true;
    change.close_stream = m.stream;  // several at once are closed one tick apart
    change.departed.push_back({m.role, m.name, m.address, "no report for 1.5 s"});
    it = members_.erase(it);
    break;
  }
  return change;
}

}  // namespace expertmesh::router
