// absl::Status ↔ gRPC: code, reason and metadata survive the wire as google.rpc.ErrorInfo with domain
// "expertmesh" (docs/protocol.md §2).
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace expertmesh::rpc {

inline constexpr char kErrorDomain[] = "expertmesh";

/// For the end of a call: details go into grpc-status-details-bin.
grpc::Status ToGrpcStatus(const absl::Status& status);
/// A status without our details gets the reason that goes with its code, e.g. UNAVAILABLE → kPeerLost.
absl::Status FromGrpcStatus(const grpc::Status& status);

/// For statuses inside a stream, e.g. CombineHeader.status.
google::rpc::Status ToRpcStatus(const absl::Status& status);
absl::Status FromRpcStatus(const google::rpc::Status& status);

}  // namespace expertmesh::rpc
