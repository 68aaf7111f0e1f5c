// What Abseil does whenever a lock is taken, in processes where locks are taken all the time.
#pragma once

#include "absl/synchronization/mutex.h"

namespace expertmesh::rpc {

/// gRPC's locks are Abseil's, whose debug build, the one that distributions ship, looks for a
/// deadlock whenever one is taken. For processes on a token's way; before anything of gRPC.
inline void TurnDeadlockSearchOff() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace expertmesh::rpc
