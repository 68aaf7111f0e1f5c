// Who is alive: a state machine over the Register streams (docs/protocol.md §3). Pure, one owner.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "services/base/clock.h"
#include "services/base/expert_node.h"

namespace expertmesh::router {

enum class Role { kGateway, kRouter, kAttentionWorker, kExpertWorker, kEngramStore };
std::string RoleName(Role role);  // "expert-worker"

struct EpochId {
  uint64_t term = 0;
  uint64_t number = 0;
  uint64_t content_hash = 0;
  friend bool operator==(const EpochId&, const EpochId&) = default;
};

/// What a member said at registration, and its last report.
struct Member {
  Role role = Role::kGateway;
  std::string name;
  uint64_t incarnation = 0;
  std::string address;
  std::string admin_address;
  std::string model;
  std::string revision;
  std::string profile;
  std::string fingerprint;
  std::vector<base::ExpertRange> experts;  // sorted, disjoint
  uint32_t expert_count = 0;
  EpochId last_epoch;

  bool ready = false;
  bool draining = false;
  uint64_t load = 0;
  uint64_t queued = 0;
  std::string reason;

  uint64_t stream = 0;        // the owner's name for its Register stream
  base::Instant registered;
  base::Instant last_report;
};

/// A member that left, for /statusz.
struct Departure {
  Role role = Role::kGateway;
  std::string name;
  std::string address;
  std::string reason;
};

struct MembershipChange {
  bool view_changed = false;
  std::optional<uint64_t> close_stream;  // of an earlier incarnation, or of an expired member
  std::vector<Departure> departed;
};

class Membership {
 public:
  /// A member without a report for this long is gone.
  static constexpr base::Micros kExpiry{1'500'000};

  /// First message of a stream. The same (role, name) on another stream is replaced: newest wins.
  MembershipChange Hello(uint64_t stream, Member member, base::Instant now);
  struct Report {
    bool ready = false;
    bool draining = false;
    uint64_t load = 0;
    uint64_t queued = 0;
    std::string reason;
  };
  MembershipChange OnReport(uint64_t stream, const Report& report, base::Instant now);
  MembershipChange StreamEnded(uint64_t stream, const std::string& why);
  MembershipChange Tick(base::Instant now);

  /// Alive members by (role, name).
  using Key = std::pair<Role, std::string>;
  const std::map<Key, Member>& members() const { return members_; }

 private:
  std::map<Key, Member>::iterator Find(uint64_t stream);

  std::map<Key, Member> members_;
};

}  // namespace expertmesh::router
