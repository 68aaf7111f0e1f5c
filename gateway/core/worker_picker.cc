#include "gateway/core/worker_picker.h"

#include <optional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

using base::Error;
using base::Reason;

// Empty: it can take a request.
std::string WhyNot(const WorkerInfo& worker, const std::string& model) {
  if (worker.model != model) return absl::StrCat("serves model ", worker.model);
  if (worker.down) return "does not answer";
  if (worker.draining) return "is draining";
  if (!worker.ready) return "is not ready";
  return "";
}

}  // namespace

absl::StatusOr<size_t> PickWorker(const MeshSnapshot& mesh, const std::string& model) {
  if (!mesh.missing_experts.empty()) {
    return Error(Reason::kExpertsUnavailable,
                 absl::StrCat("no live worker hosts experts ", mesh.missing_experts),
                 {{"experts", mesh.missing_experts}});
  }
  std::optional<size_t> best;
  std::string reasons;
  for (size_t i = 0; i < mesh.workers.size(); ++i) {
    const WorkerInfo& worker = mesh.workers[i];
    if (const std::string why = WhyNot(worker, model); !why.empty()) {
      absl::StrAppend(&reasons, "; ", worker.name, " ", why);
      continue;
    }
    if (best && std::tie(mesh.workers[*best].load, mesh.workers[*best].name) <=
                    std::tie(worker.load, worker.name)) {
      continue;
    }
    best = i;
  }
  if (best) return *best;
  return Error(Reason::kNoAttentionWorker,
               absl::StrCat("no attention worker can answer for model ", model,
                            reasons.empty() ? "; none is registered" : reasons));
}

}  // namespace expertmesh::gateway
