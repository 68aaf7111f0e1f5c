// A unary call by path, for methods without a generated stub here.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/generic/generic_stub.h>

#include <future>
#include <memory>
#include <string>

#include "services/rpc/identity.h"
#include "tests/services/rpc/handler_service.h"

namespace expertmesh::rpc {

inline grpc::ByteBuffer ToBytes(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

inline bool FromBytes(const grpc::ByteBuffer& bytes, google::protobuf::Message& message) {
  grpc::Slice slice;
  return bytes.DumpToSingleSlice(&slice).ok() &&
         message.ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

inline grpc::Status UnaryCall(grpc::ChannelInterface& channel, const std::string& path,
                              const google::protobuf::Message& request,
                              google::protobuf::Message& response) {
  grpc::GenericStub stub(
      std::shared_ptr<grpc::ChannelInterface>(std::shared_ptr<void>(), &channel));
  grpc::ClientContext context;
  PrepareClient(context, {}, kCallBudget);
  const grpc::ByteBuffer sent = ToBytes(request);
  grpc::ByteBuffer received;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, path, grpc::StubOptions(), &sent, &received,
                 [&](grpc::Status status) { done.set_value(std::move(status)); });
  grpc::Status status = done.get_future().get();
  if (status.ok() && !FromBytes(received, response)) {
    return {grpc::StatusCode::DATA_LOSS, "the answer cannot be parsed"};
  }
  return status;
}

}  // namespace expertmesh::rpc
