// Which attention worker takes a prompt: a plan of stages, of length one today. Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "router/core/placement.h"

namespace expertmesh::router {

struct Stage {
  Role role = Role::kAttentionWorker;
  std::string worker;
  std::string address;
  uint32_t token_begin = 0;
  uint32_t token_end = 0;
};

/// The ready attention worker of the model with the least load (name breaks ties). `model` may be empty.
/// Errors: kNoAttentionWorker, kExpertsUnavailable, kModelNotFound.
absl::StatusOr<std::vector<Stage>> Route(const std::map<Membership::Key, Member>& members,
                                         const Placement& placement, const std::string& model,
                                         uint32_t prompt_tokens);

}  // namespace expertmesh::router
