// Members of a small mesh, for the tests of router/core/.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "router/core/member.h"

namespace expertmesh::router {

inline constexpr uint32_t kExperts = 32;  // of the model "tiny"; groups of one expert

inline Member MakeMember(Role role, const std::string& name, uint64_t incarnation = 1) {
  Member m;
  m.role = role;
  m.name = name;
  m.incarnation = incarnation;
  m.address = name + ":7000";
  m.model = "tiny";
  m.revision = "rev-a";
  m.profile = "bf16";
  m.expert_count = kExperts;
  return m;
}

inline Member Expert(const std::string& name, std::string_view slice, uint32_t experts = kExperts) {
  Member m = MakeMember(Role::kExpertWorker, name);
  m.expert_count = experts;
  m.experts = base::ParseSlice(slice, experts).value();
  m.report.ready = true;
  return m;
}

inline Member Attention(const std::string& name) {
  Member m = MakeMember(Role::kAttentionWorker, name);
  m.report.ready = true;
  return m;
}

/// The same member of another revision, registered `later_us` later.
inline Member OfRevision(Member m, const std::string& revision, int64_t later_us = 0) {
  m.revision = revision;
  m.registered = {later_us};
  return m;
}

inline Members Mesh(std::initializer_list<Member> list) {
  Members members;
  for (const Member& m : list) members[{m.role, m.name}] = m;
  return members;
}

}  // namespace expertmesh::router
