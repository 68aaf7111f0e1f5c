// The receiving end of the grpc transport: expert.v1.ExpertService with raw frames for Dispatch,
// typed Describe and AgreeRing.
#pragma once

#include <memory>

#include "expertmesh/expert/v1/expert.grpc.pb.h"
#include "services/transport/shm_server.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

/// Register with rpc::Server. `handler` is called on gRPC threads, one frame at a time per stream;
/// the Reply may outlive the stream (it is then dropped).
class DispatchServer final : public expert::v1::ExpertService::WithRawCallbackMethod_Dispatch<
                                 expert::v1::ExpertService::WithCallbackMethod_Describe<
                                     expert::v1::ExpertService::WithCallbackMethod_AgreeRing<
                                         expert::v1::ExpertService::Service>>> {
 public:
  using DescribeFn =
      std::function<expert::v1::DescribeResponse(const expert::v1::DescribeRequest& request)>;
  /// `incarnation` is ours; a caller that expects another one is refused (it dialled a reused
  /// address). `rings` serves shared memory and outlives the server; null: there is none.
  DispatchServer(uint64_t incarnation, FrameHandler handler, DescribeFn describe,
                 ShmServer* rings = nullptr);

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Dispatch(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const expert::v1::DescribeRequest* request,
                                     expert::v1::DescribeResponse* response) override;
  grpc::ServerUnaryReactor* AgreeRing(grpc::CallbackServerContext* context,
                                      const expert::v1::AgreeRingRequest* request,
                                      expert::v1::AgreeRingResponse* response) override;

 private:
  const uint64_t incarnation_;
  const FrameHandler handler_;
  const DescribeFn describe_;
  ShmServer* const rings_;
  const std::shared_ptr<BufferPool> buffers_;
};

}  // namespace expertmesh::transport
