// absl::Status ↔ gRPC: code, reason and metadata survive the wire as google.rpc.ErrorInfo with
// domain "expertmesh" (docs/protocol.md §2).
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace expertmesh::rpc {

inline constexpr char kErrorDomain[] = "expertmesh";
/// The end of a call travels as HTTP/2 headers, and a peer drops a call whose headers pass 8 KiB.
/// ToGrpcStatus cuts the message and leaves metadata out, largest value first, to stay below.
inline constexpr size_t kStatusMessageBytesMax = 1024;
inline constexpr size_t kStatusDetailsBytesMax = 3072;

/// For the end of a call: details go into grpc-status-details-bin. Bytes that are not UTF-8 become
/// '?'.
grpc::Status ToGrpcStatus(const absl::Status& status);
/// A status without our details gets the reason that goes with its code, e.g. UNAVAILABLE →
/// kPeerLost. Details of another domain or of broken form count as none.
absl::Status FromGrpcStatus(const grpc::Status& status);

/// For statuses inside a stream, e.g. CombineHeader.status: not cut, but always UTF-8.
google::rpc::Status ToRpcStatus(const absl::Status& status);
absl::Status FromRpcStatus(const google::rpc::Status& status);

}  // namespace expertmesh::rpc
