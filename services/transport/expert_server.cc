#include "services/transport/expert_server.h"

#include <utility>

#include "services/base/status.h"
#include "services/rpc/status.h"

namespace expertmesh::transport {

using base::Error;
using base::Reason;

ExpertServer::ExpertServer(uint64_t incarnation, DescribeFn describe, ShmServer* rings)
    : incarnation_(incarnation), describe_(std::move(describe)), rings_(rings) {}

grpc::ServerUnaryReactor* ExpertServer::Describe(grpc::CallbackServerContext* context,
                                                 const expert::v1::DescribeRequest* request,
                                                 expert::v1::DescribeResponse* response) {
  *response = describe_(*request);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* ExpertServer::AgreeRing(grpc::CallbackServerContext* context,
                                                  const expert::v1::AgreeRingRequest* request,
                                                  expert::v1::AgreeRingResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::StatusOr<expert::v1::AgreeRingResponse> agreed =
      Error(Reason::kUnsupported, "this worker serves no rings");
  if (request->expected_incarnation() != incarnation_) {
    agreed = Error(Reason::kPeerLost, "another incarnation of this worker was expected");
  } else if (rings_ != nullptr) {
    agreed = rings_->Agree(*request);
  }
  if (agreed.ok()) *response = *std::move(agreed);
  reactor->Finish(rpc::ToGrpcStatus(agreed.status()));
  return reactor;
}

grpc::Status ExpertServer::Dispatch(
    grpc::ServerContext* /*context*/,
    grpc::ServerReaderWriter<expert::v1::DispatchResponse, expert::v1::DispatchRequest>*
    /*stream*/) {
  return rpc::ToGrpcStatus(
      Error(Reason::kUnsupported, "dispatch frames are served at frames_address of Describe"));
}

}  // namespace expertmesh::transport
