// The gRPC face of inference.v1 (tokens only). attention.v1 is lane_service.h.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "attention-worker/attention_engine.h"
#include "expertmesh/inference/v1/inference.grpc.pb.h"

namespace expertmesh::attention_worker {

class ConstraintCompiler;

/// What both gRPC services say about this worker.
struct WorkerIdentity {
  std::string name;
  std::string model;
  std::string revision;
  std::string profile;
  std::string fingerprint;
  uint64_t context = 0;
  uint64_t lane_tokens = 0;  // that all pages hold
  uint32_t vocab_size = 0;
  uint32_t layers = 0;
  uint32_t top_k = 0;
  bool debug_api = false;
  ConstraintCompiler* constraints = nullptr;  // null: the model has no tokenizer
};

/// Turns a GenerateRequest into a LaneRequest with a name and a record of its own, or says what is
/// wrong with it. `now` starts the budget.
absl::StatusOr<LaneRequest> ToLaneRequest(const inference::v1::GenerateRequest& request,
                                          const WorkerIdentity& identity, base::Instant now,
                                          base::Micros budget);

/// The lane reads that version of the memory from its start to its end, here and where it may move.
void KeepVersion(LaneRequest& lane, std::shared_ptr<const MemoryPin> pin);

/// inference.v1.InferenceService. `admit` says whether new work is taken now (ready, not draining,
/// experts hosted).
class GenerateService final : public inference::v1::InferenceService::CallbackService {
 public:
  /// `stores` is null without a memory, or if its tables are in this process.
  GenerateService(AttentionEngine& engine, WorkerIdentity identity, const base::Clock& clock,
                  std::function<absl::Status()> admit, EngramStores* stores)
      : engine_(engine),
        identity_(std::move(identity)),
        clock_(clock),
        admit_(std::move(admit)),
        stores_(stores) {}

  grpc::ServerWriteReactor<inference::v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const inference::v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const inference::v1::ListModelsRequest* request,
                                       inference::v1::ListModelsResponse* response) override;

 private:
  absl::Status Resume(const inference::v1::GenerateRequest& request, const std::string& tenant,
                      base::Micros budget, const std::shared_ptr<LaneSink>& sink);

  AttentionEngine& engine_;
  const WorkerIdentity identity_;
  const base::Clock& clock_;
  const std::function<absl::Status()> admit_;
  EngramStores* const stores_;
};

}  // namespace expertmesh::attention_worker
