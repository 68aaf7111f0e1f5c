// expert.v1.ExpertService but for its frames: Describe, and AgreeRing for callers on this host. The
// frames come in at the FrameDoor.
#pragma once

#include <functional>

#include "expertmesh/expert/v1/expert.grpc.pb.h"
#include "services/transport/shm_server.h"

namespace expertmesh::transport {

/// Register with rpc::Server. Handlers run on gRPC threads.
class ExpertServer final : public expert::v1::ExpertService::WithCallbackMethod_Describe<
                               expert::v1::ExpertService::WithCallbackMethod_AgreeRing<
                                   expert::v1::ExpertService::Service>> {
 public:
  using DescribeFn =
      std::function<expert::v1::DescribeResponse(const expert::v1::DescribeRequest& request)>;
  /// `incarnation` is ours; a caller that expects another one is refused (it dialled a reused
  /// address). `rings` serves shared memory and outlives the server; null: there is none.
  ExpertServer(uint64_t incarnation, DescribeFn describe, ShmServer* rings = nullptr);

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const expert::v1::DescribeRequest* request,
                                     expert::v1::DescribeResponse* response) override;
  grpc::ServerUnaryReactor* AgreeRing(grpc::CallbackServerContext* context,
                                      const expert::v1::AgreeRingRequest* request,
                                      expert::v1::AgreeRingResponse* response) override;
  /// Says where it is served.
  grpc::Status Dispatch(grpc::ServerContext* context,
                        grpc::ServerReaderWriter<expert::v1::DispatchResponse,
                                                 expert::v1::DispatchRequest>* stream) override;

 private:
  const uint64_t incarnation_;
  const DescribeFn describe_;
  ShmServer* const rings_;
};

}  // namespace expertmesh::transport
