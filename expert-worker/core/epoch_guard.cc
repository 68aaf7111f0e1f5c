#include "expert-worker/core/epoch_guard.h"

#include <tuple>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::expert_worker {

using base::Error;
using base::Reason;

void EpochGuard::Learn(const EpochId& epoch) {
  if (newest_ && std::tie(epoch.term, epoch.number) < std::tie(newest_->term, newest_->number)) {
    return;
  }
  if (newest_ && *newest_ != epoch) previous_ = newest_;
  newest_ = epoch;
}

absl::Status EpochGuard::Admit(const EpochId& epoch) const {
  if (!newest_ || epoch == previous_) return absl::OkStatus();
  const bool stale = epoch.term < newest_->term ||
                     (epoch.term == newest_->term && epoch.number + 1 < newest_->number);
  if (stale) {
    return Error(Reason::kEpochStale,
                 absl::StrCat("epoch ", epoch.term, ".", epoch.number,
                              " is retired; the newest is ", newest_->term, ".", newest_->number));
  }
  if (epoch.term == newest_->term && epoch.number == newest_->number &&
      epoch.content_hash != newest_->content_hash) {
    return Error(Reason::kEpochMismatch, absl::StrCat("epoch ", epoch.term, ".", epoch.number,
                                                      " has another content hash here"));
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::expert_worker
