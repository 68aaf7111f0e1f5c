// Which attention worker answers a request: the ready one of the model with the least load. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::gateway {

struct WorkerInfo {
  std::string name;
  std::string address;
  std::string model;
  std::string revision;
  bool ready = false;
  bool draining = false;
  bool down = false;  // its connection failed since the last view
  uint64_t load = 0;  // running and waiting lanes
};

struct MeshSnapshot {
  std::vector<WorkerInfo> workers;  // attention workers
  bool placed = false;              // an epoch exists
  std::string missing_experts;      // slice text of what nobody hosts; empty if all is hosted
};

/// Least load, then name. Errors: kNoAttentionWorker, kExpertsUnavailable naming the experts.
absl::StatusOr<WorkerInfo> PickWorker(const MeshSnapshot& mesh, const std::string& model);

}  // namespace expertmesh::gateway
