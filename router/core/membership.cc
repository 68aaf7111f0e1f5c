#include "router/core/membership.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::router {

using base::Error;
using base::Reason;

namespace {

constexpr size_t kSupersededMax = 16;  // incarnations remembered per name

Departure DepartureOf(const Member& m, const std::string& why) {
  return {m.role, m.name, m.address, why};
}

}  // namespace

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

MembershipChange Membership::StreamOpened(uint64_t stream, base::Instant now) {
  MembershipChange change;
  if (streams_.size() >= kStreamsMax) {
    change.close.push_back(
        {stream, Error(Reason::kQueueFull, absl::StrCat("the router holds ", kStreamsMax,
                                                        " Register streams; try again later"))});
    return change;
  }
  streams_[stream].opened = now;
  return change;
}

MembershipChange Membership::Hello(uint64_t stream, Member member, base::Instant now) {
  const auto it = streams_.find(stream);
  if (it == streams_.end()) return {};
  if (it->second.member) {
    return Refuse(stream, Error(Reason::kInvalidArgument, "one Hello per stream; dial again"), now);
  }
  const MemberKey key{member.role, member.name};
  MembershipChange change;
  member.stream = stream;
  member.registered = now;
  member.last_report = now;
  const auto old = members_.find(key);
  if (old != members_.end()) {
    const auto& superseded = old->second.superseded;
    if (std::find(superseded.begin(), superseded.end(), member.incarnation) != superseded.end()) {
      return Refuse(stream,
                    Error(Reason::kPeerLost,
                          absl::StrCat("a newer process is registered as ", RoleName(member.role),
                                       " ", member.name, "; stop one of the two or rename it")),
                    now);
    }
    Supersede(member, old->second, change);
  }
  it->second.member = key;
  members_[key] = std::move(member);
  departed_.erase(key);
  change.view_changed = true;
  return change;
}

// The old stream of a name goes; what is worth keeping moves to the new member.
void Membership::Supersede(Member& member, const Member& old, MembershipChange& change) {
  member.superseded = old.superseded;
  const char* why = "this process has registered again on another stream";
  if (member.incarnation == old.incarnation) {
    member.report = old.report;
    member.registered = old.registered;
  } else {
    why = "a newer process of this name has registered";
    member.superseded.push_back(old.incarnation);
    if (member.superseded.size() > kSupersededMax) {
      member.superseded.erase(member.superseded.begin());
    }
  }
  change.close.push_back({old.stream, Error(Reason::kPeerLost, why)});
  streams_.erase(old.stream);
}

MembershipChange Membership::Reported(uint64_t stream, const Report& report, base::Instant now) {
  const auto it = streams_.find(stream);
  if (it == streams_.end()) return {};
  if (!it->second.member) {
    return Refuse(stream, Error(Reason::kInvalidArgument, "a stream begins with a Hello"), now);
  }
  Member& m = members_.at(*it->second.member);
  MembershipChange change;
  load_changed_ = load_changed_ || m.report.load != report.load || m.report.queued != report.queued;
  change.view_changed = m.report.ready != report.ready || m.report.draining != report.draining ||
                        m.report.reason != report.reason;
  m.report = report;
  m.last_report = now;
  m.routed = 0;
  return change;
}

MembershipChange Membership::Refuse(uint64_t stream, const absl::Status& why, base::Instant now) {
  MembershipChange change = StreamEnded(stream, std::string(why.message()), now);
  change.close.push_back({stream, why});
  return change;
}

MembershipChange Membership::StreamEnded(uint64_t stream, const std::string& why,
                                         base::Instant now) {
  MembershipChange change;
  const auto it = streams_.find(stream);
  if (it == streams_.end()) return change;  // closed by us earlier
  const std::optional<MemberKey> member = it->second.member;
  streams_.erase(it);
  if (member) Leave(*member, why, now, change);
  return change;
}

void Membership::Leave(const MemberKey& key, const std::string& why, base::Instant now,
                       MembershipChange& change) {
  const auto it = members_.find(key);
  const bool drained = it->second.report.draining;
  change.departed.push_back(DepartureOf(it->second, drained ? "left after draining" : why));
  change.view_changed = true;
  members_.erase(it);
  departed_[key] = now;
}

MembershipChange Membership::Tick(base::Instant now) {
  Extend(now);
  MembershipChange change;
  for (auto it = streams_.begin(); it != streams_.end();) {
    const auto& [stream, state] = *it;
    const base::Instant heard =
        state.member ? members_.at(*state.member).last_report : state.opened;
    if (now - heard < kExpiry) {
      ++it;
      continue;
    }
    const std::string why = state.member ? "no report for 1.5 s" : "no Hello for 1.5 s";
    change.close.push_back({stream, Error(Reason::kDeadlineExceeded, why)});
    if (state.member) Leave(*state.member, why, now, change);
    it = streams_.erase(it);
  }
  if (load_changed_ && now - last_load_view_ >= kLoadInterval) {
    load_changed_ = false;
    last_load_view_ = now;
    change.view_changed = true;
  }
  Forget(now, change);
  return change;
}

void Membership::Extend(base::Instant now) {
  const base::Micros gap = last_tick_ == base::kNever ? base::Micros(0) : now - last_tick_;
  last_tick_ = now;
  if (gap <= kStall) return;
  for (auto& [stream, state] : streams_) {
    base::Instant& heard = state.member ? members_.at(*state.member).last_report : state.opened;
    heard = std::min(heard + gap, now);
  }
}

void Membership::Forget(base::Instant now, MembershipChange& change) {
  const auto forget = [&](std::map<MemberKey, base::Instant>::iterator it) {
    change.forgotten.push_back({it->first.first, it->first.second, "", ""});
    return departed_.erase(it);
  };
  for (auto it = departed_.begin(); it != departed_.end();) {
    it = now - it->second >= kForget ? forget(it) : std::next(it);
  }
  while (departed_.size() > kDepartedMax) {
    forget(std::min_element(departed_.begin(), departed_.end(),
                            [](const auto& a, const auto& b) { return a.second < b.second; }));
  }
}

void Membership::Routed(const MemberKey& key) {
  const auto it = members_.find(key);
  if (it != members_.end()) ++it->second.routed;
}

}  // namespace expertmesh::router
