// The gRPC face of attention.v1: what a worker declares about itself, and lanes on the move.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "attention-worker/attention_engine.h"
#include "attention-worker/attention_service.h"
#include "expertmesh/attention/v1/attention.grpc.pb.h"

namespace expertmesh::attention_worker {

/// attention.v1.AttentionService.
class LaneService final : public attention::v1::AttentionService::CallbackService {
 public:
  /// All references outlive the service. `admit`: whether new work is taken now.
  /// `stores` is null without a memory, or if its tables are in this process.
  LaneService(AttentionEngine& engine, const ExpertDispatcher& experts,
              const model::LaneStateDeclaration& lane_state, WorkerIdentity identity,
              const base::Clock& clock, std::function<absl::Status()> admit, EngramStores* stores)
      : engine_(engine),
        experts_(experts),
        lane_state_(lane_state),
        identity_(std::move(identity)),
        clock_(clock),
        admit_(std::move(admit)),
        stores_(stores) {}

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const attention::v1::DescribeRequest* request,
                                     attention::v1::DescribeResponse* response) override;
  grpc::ServerWriteReactor<attention::v1::ExportLaneResponse>* ExportLane(
      grpc::CallbackServerContext* context,
      const attention::v1::ExportLaneRequest* request) override;
  grpc::ServerReadReactor<attention::v1::ImportLaneRequest>* ImportLane(
      grpc::CallbackServerContext* context, attention::v1::ImportLaneResponse* response) override;

 private:
  AttentionEngine& engine_;
  const ExpertDispatcher& experts_;
  const model::LaneStateDeclaration& lane_state_;
  const WorkerIdentity identity_;
  const base::Clock& clock_;
  const std::function<absl::Status()> admit_;
  EngramStores* const stores_;
};

/// What Describe and LaneRecord say of a declaration.
void ToProto(const model::LaneStateDeclaration& lane_state,
             google::protobuf::RepeatedPtrField<attention::v1::LaneStream>* out);

}  // namespace expertmesh::attention_worker
