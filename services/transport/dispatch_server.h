// The receiving end of the grpc transport: expert.v1.ExpertService with raw frames for Dispatch and
// a typed Describe.
#pragma once

#include <memory>

#include "expertmesh/expert/v1/expert.grpc.pb.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

/// Register with rpc::Server. `handler` is called on gRPC threads, one frame at a time per stream;
/// the Reply may outlive the stream (it is then dropped).
class DispatchServer final : public expert::v1::ExpertService::WithRawCallbackMethod_Dispatch<
                                 expert::v1::ExpertService::WithCallbackMethod_Describe<
                                     expert::v1::ExpertService::Service>> {
 public:
  using DescribeFn =
      std::function<expert::v1::DescribeResponse(const expert::v1::DescribeRequest& request)>;
  /// `incarnation` is ours; a caller that expects another one is refused (it dialled a reused
  /// address).
  DispatchServer(uint64_t incarnation, FrameHandler handler, DescribeFn describe);

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Dispatch(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const expert::v1::DescribeRequest* request,
                                     expert::v1::DescribeResponse* response) override;

 private:
  const uint64_t incarnation_;
  const FrameHandler handler_;
  const DescribeFn describe_;
  const std::shared_ptr<BufferPool> buffers_;
};

}  // namespace expertmesh::transport
