// A member of the mesh as the router knows it: what its Hello and its last Report said.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
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

/// State and load, as last reported.
struct Report {
  bool ready = false;
  bool draining = false;
  uint64_t load = 0;
  uint64_t queued = 0;
  std::string reason = {};  // why it is not ready
  friend bool operator==(const Report&, const Report&) = default;
};

struct Member {
  Role role = Role::kGateway;
  std::string name = {};
  uint64_t incarnation = 0;
  std::string address = {};
  std::string admin_address = {};
  std::string frames_address = {};
  std::string model = {};
  std::string revision = {};
  std::string profile = {};
  std::string fingerprint = {};
  std::vector<base::ExpertRange> experts = {};  // sorted, merged
  uint32_t expert_count = 0;
  EpochId last_epoch = {};

  Report report = {};
  base::Instant registered = {};
  base::Instant last_report = {};
  uint64_t stream = 0;                    // the owner's name for its Register stream
  uint64_t routed = 0;                    // prompts sent to it since its last report
  std::vector<uint64_t> superseded = {};  // incarnations that it replaced, newest last

  /// Takes new work.
  bool serving() const { return report.ready && !report.draining; }
};

using MemberKey = std::pair<Role, std::string>;
using Members = std::map<MemberKey, Member>;

}  // namespace expertmesh::router
