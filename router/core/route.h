// Which attention worker takes a prompt: a plan of stages, of length one today. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "router/core/member.h"
#include "router/core/placement.h"

namespace expertmesh::router {

struct Stage {
  Role role = Role::kAttentionWorker;
  std::string worker = {};
  std::string address = {};
  uint32_t token_begin = 0;
  uint32_t token_end = 0;  // one past the last prompt token of the stage
};

/// What is asked for; empty fields mean any.
struct RouteQuery {
  std::string model = {};
  std::string revision = {};
  uint32_t prompt_tokens = 0;
};

/// The serving attention worker with the least load, prompts routed since its last report included;
/// the name breaks ties. Errors: kModelNotFound (workers serve, but not that model),
/// kNoAttentionWorker, kExpertsUnavailable (metadata "experts").
absl::StatusOr<std::vector<Stage>> Route(const Members& members, const Placement& placement,
                                         const RouteQuery& query);

}  // namespace expertmesh::router
