#include "gateway/core/worker_picker.h"

#include <tuple>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

using base::Error;
using base::Reason;

absl::StatusOr<WorkerInfo> PickWorker(const MeshSnapshot& mesh, const std::string& model) {
  const WorkerInfo* best = nullptr;
  for (const WorkerInfo& w : mesh.workers) {
    if (w.model != model || !w.ready || w.draining || w.down) continue;
    if (best == nullptr || std::tie(w.load, w.name) < std::tie(best->load, best->name)) best = &w;
  }
  if (!mesh.missing_experts.empty()) {
    return Error(Reason::kExpertsUnavailable,
                 absl::StrCat("no live worker hosts experts ", mesh.missing_experts),
                 {{"experts", mesh.missing_experts}});
  }
  if (best == nullptr) {
    return Error(Reason::kNoAttentionWorker,
                 absl::StrCat("no attention worker for model ", model, " is ready"));
  }
  return *best;
}

}  // namespace expertmesh::gateway
