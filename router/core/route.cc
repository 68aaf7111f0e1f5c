#include "router/core/route.h"

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::router {

using base::Error;
using base::Reason;

absl::StatusOr<std::vector<Stage>> Route(const std::map<Membership::Key, Member>& members,
                                         const Placement& placement, const std::string& model,
                                         uint32_t prompt_tokens) {
  const Member* best = nullptr;
  bool other_model = false;
  for (const auto& [key, m] : members) {
    if (m.role != Role::kAttentionWorker || !m.ready || m.draining) continue;
    if (!model.empty() && m.model != model) {
      other_model = true;
      continue;
    }
    if (best == nullptr || m.load + m.queued < best->load + best->queued) best = &m;
  }
  if (best == nullptr && other_model) {
    return Error(Reason::kModelNotFound, absl::StrCat("no worker serves model ", model));
  }
  if (best == nullptr) {
    return Error(Reason::kNoAttentionWorker, "no attention worker is ready; is one running?");
  }
  if (!placement.missing().empty()) {
    const std::string missing = base::SliceName(placement.missing());
    return Error(Reason::kExpertsUnavailable, absl::StrCat("no live worker hosts experts ", missing),
                 {{"experts", missing}});
  }
  return std::vector<Stage>{{Role::kAttentionWorker, best->name, best->address, 0, prompt_tokens}};
}

}  // namespace expertmesh::router
