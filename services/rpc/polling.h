// What gRPC is told before it starts, in processes that carry dispatch frames.
#pragma once

#include <cstdlib>

#include "absl/synchronization/mutex.h"

namespace expertmesh::rpc {

/// A thread that polls a queue waits for the queue's own connections. gRPC's default has one thread
/// of the process wait for all of them, which hands what comes on to the thread whose queue it is:
/// two more switches of threads per message, and more for a Unix socket, where every read of the
/// peer wakes it too. Nor does gRPC look for deadlocks whenever it takes a lock, as the debug build
/// of Abseil that distributions ship does. For processes that carry dispatch frames; before
/// anything of gRPC, with one thread. GRPC_POLL_STRATEGY in the environment wins.
inline void PrepareForFrames() {
  setenv("GRPC_POLL_STRATEGY", "poll", /*overwrite=*/0);
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace expertmesh::rpc
