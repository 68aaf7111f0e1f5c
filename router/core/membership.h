// Who is alive: a state machine over the Register streams (docs/protocol.md §3). Pure, one owner.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "router/core/member.h"

namespace expertmesh::router {

/// A member that left, and why.
struct Departure {
  Role role = Role::kGateway;
  std::string name = {};
  std::string address = {};
  std::string reason = {};
};

/// What the owner does after an event.
struct MembershipChange {
  struct Close {
    uint64_t stream = 0;
    absl::Status why;  // never OK
  };
  bool view_changed = false;              // send everyone the new view
  std::vector<Close> close = {};          // end these streams; nothing of them counts any more
  std::vector<Departure> departed = {};   // show as down
  std::vector<Departure> forgotten = {};  // left so long ago that nobody asks any more
};

/// Events in, actions out. A stream is whatever number the owner gives it; it is used once.
class Membership {
 public:
  /// A member without a report, or a stream without a Hello, for this long is gone.
  static constexpr base::Micros kExpiry{1'500'000};
  /// A report that changes nothing but load and queued waits up to so long for its view.
  static constexpr base::Micros kLoadInterval{500'000};
  /// Ticks further apart than this say that the router itself stood still. The time that it could
  /// not listen counts against nobody.
  static constexpr base::Micros kStall{500'000};
  static constexpr base::Micros kForget{600'000'000};
  static constexpr size_t kStreamsMax = 4096;   // more are refused with QUEUE_FULL
  static constexpr size_t kDepartedMax = 1024;  // the longest gone are forgotten first

  MembershipChange StreamOpened(uint64_t stream, base::Instant now);
  /// First message of a stream. Another stream of the same (role, name) is closed: the newest wins,
  /// and while it lives the incarnations that it replaced cannot come back. A process that
  /// registers again (same incarnation) keeps its readiness.
  MembershipChange Hello(uint64_t stream, Member member, base::Instant now);
  MembershipChange Reported(uint64_t stream, const Report& report, base::Instant now);
  /// Ends a stream whose message cannot be used.
  MembershipChange Refuse(uint64_t stream, const absl::Status& why, base::Instant now);
  MembershipChange StreamEnded(uint64_t stream, const std::string& why, base::Instant now);
  MembershipChange Tick(base::Instant now);

  /// A prompt was sent to this member; counts as load until its next report.
  void Routed(const MemberKey& key);

  /// Alive members.
  const Members& members() const { return members_; }

 private:
  struct Stream {
    base::Instant opened;
    std::optional<MemberKey> member;  // after its Hello
  };
  void Leave(const MemberKey& key, const std::string& why, base::Instant now,
             MembershipChange& change);
  void Supersede(Member& member, const Member& old, MembershipChange& change);
  void Extend(base::Instant now);
  void Forget(base::Instant now, MembershipChange& change);

  std::map<uint64_t, Stream> streams_;
  Members members_;
  std::map<MemberKey, base::Instant> departed_;
  base::Instant last_tick_ = base::kNever;
  base::Instant last_load_view_;
  bool load_changed_ = false;
};

}  // namespace expertmesh::router
