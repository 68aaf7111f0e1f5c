#include "router/core/route.h"

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::router {

using base::Error;
using base::Reason;

namespace {

bool Fits(const std::string& wanted, const std::string& have) {
  return wanted.empty() || wanted == have;
}

uint64_t LoadOf(const Member& m) { return m.report.load + m.report.queued + m.routed; }

}  // namespace

absl::StatusOr<std::vector<Stage>> Route(const Members& members, const Placement& placement,
                                         const RouteQuery& query) {
  const Member* best = nullptr;
  bool has_model = false;
  bool has_other = false;
  for (const auto& [key, m] : members) {
    if (m.role != Role::kAttentionWorker) continue;
    const bool fits = Fits(query.model, m.model) && Fits(query.revision, m.revision);
    (fits ? has_model : has_other) = true;
    if (fits && m.serving() && (best == nullptr || LoadOf(m) < LoadOf(*best))) best = &m;
  }
  if (best != nullptr && placement.missing().empty()) {
    return std::vector<Stage>{{.worker = best->name,
                               .address = best->address,
                               .token_begin = 0,
                               .token_end = query.prompt_tokens}};
  }
  if (best != nullptr) {
    const std::string missing = base::SliceName(placement.missing());
    return Error(Reason::kExpertsUnavailable,
                 absl::StrCat("no live worker hosts experts ", missing), {{"experts", missing}});
  }
  if (has_other && !has_model) {
    return Error(Reason::kModelNotFound,
                 absl::StrCat("no worker serves model ", query.model, " revision ",
                              query.revision.empty() ? "(any)" : query.revision));
  }
  return Error(Reason::kNoAttentionWorker, "no attention worker is ready; is one running?");
}

}  // namespace expertmesh::router
