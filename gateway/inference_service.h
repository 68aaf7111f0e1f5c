// inference.v1 for internal clients: text is tokenized here, a worker is picked, its events are
// passed on with their text.
#pragma once

#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "gateway/api.h"

namespace expertmesh::gateway {

class InferenceService final : public inference::v1::InferenceService::CallbackService {
 public:
  /// `api` outlives the service.
  explicit InferenceService(const Api& api) : api_(api) {}

  grpc::ServerWriteReactor<inference::v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const inference::v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const inference::v1::ListModelsRequest* request,
                                       inference::v1::ListModelsResponse* response) override;

 private:
  const Api& api_;
};

}  // namespace expertmesh::gateway
