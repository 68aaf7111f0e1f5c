// example.v1.ExampleService over the pure part in core/.
#pragma once

#include "expertmesh/example/v1/example.grpc.pb.h"

namespace expertmesh::example {

/// Stateless; handlers run on gRPC's threads, many at a time.
class ExampleService final : public v1::ExampleService::CallbackService {
 public:
  grpc::ServerUnaryReactor* CountWords(grpc::CallbackServerContext* context,
                                       const v1::CountWordsRequest* request,
                                       v1::CountWordsResponse* response) override;
};

}  // namespace expertmesh::example
