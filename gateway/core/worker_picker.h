// Which attention worker answers a request: of those of the model that are ready, reachable and not
// draining, the one with the least load. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::gateway {

struct WorkerInfo {
  std::string name = {};
  uint64_t incarnation = 0;
  std::string address = {};
  std::string model = {};
  std::string revision = {};
  std::string profile = {};
  bool ready = false;
  bool draining = false;
  bool down = false;  // our connection to it is broken
  uint64_t load = 0;  // running and waiting lanes, and those that we sent since
};

struct MeshSnapshot {
  std::vector<WorkerInfo> workers = {};  // attention workers
  std::string missing_experts = {};      // slice text of what nobody hosts; empty if all is hosted
};

/// Index in mesh.workers: least load, then name. Errors: kExpertsUnavailable naming the experts,
/// kNoAttentionWorker saying why none of them will do.
absl::StatusOr<size_t> PickWorker(const MeshSnapshot& mesh, const std::string& model);

}  // namespace expertmesh::gateway
