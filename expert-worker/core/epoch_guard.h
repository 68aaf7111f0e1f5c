// Which epochs a worker accepts (invariant 9). Pure: no clock, no thread, no network.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

namespace expertmesh::expert_worker {

struct EpochId {
  uint64_t term = 0;
  uint64_t number = 0;
  uint64_t content_hash = 0;
  friend bool operator==(const EpochId&, const EpochId&) = default;
};

/// Learns epochs from the router only, so that a bad frame cannot shut out good ones. One owner.
class EpochGuard {
 public:
  /// The router announced an epoch; a lower one than known is ignored.
  void Learn(const EpochId& epoch);
  /// OK for the newest epoch, the one before it, or a newer one that the router has not told us
  /// yet. The one that was the newest here until now counts as the one before it, whatever its
  /// term: after a change of router a caller may learn the new term a moment later. kEpochStale
  /// for any other of a lower term or an older number; kEpochMismatch for another hash of the
  /// newest.
  absl::Status Admit(const EpochId& epoch) const;
  const std::optional<EpochId>& newest() const { return newest_; }

 private:
  std::optional<EpochId> newest_;
  std::optional<EpochId> previous_;  // the newest before it
};

}  // namespace expertmesh::expert_worker
