#include "gateway/inference_service.h"

#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "gateway/generation.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::gateway {
namespace {

using inference::v1::GenerateRequest;
using inference::v1::GenerateResponse;

// Text segments become token runs; everything else stays.
absl::StatusOr<GenerateRequest> Tokenized(const Api& api, const GenerateRequest& request) {
  GenerateRequest out = request;
  if (out.model().model().empty()) out.mutable_model()->set_model(api.model);
  if (out.model().model() != api.model) {
    return base::Error(base::Reason::kModelNotFound,
                       "model " + out.model().model() + " is not served here, but " + api.model);
  }
  for (auto& segment : *out.mutable_segments()) {
    if (!segment.has_text()) continue;
    EM_ASSIGN_OR_RETURN(const auto ids, api.tokenizer->Encode(segment.text().text(), false));
    segment.mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  return out;
}

// Passes the events of a worker on, one write at a time. Shared by gRPC's reactor and the worker's call,
// whose last wake may come after the reactor is gone.
class Relay final : public std::enable_shared_from_this<Relay> {
 public:
  struct Reactor final : grpc::ServerWriteReactor<GenerateResponse> {
    explicit Reactor(std::shared_ptr<Relay> r) : relay(std::move(r)) {}
    void OnWriteDone(bool /*ok*/) override { relay->Written(); }
    void OnCancel() override { relay->Cancelled(); }
    void OnDone() override {
      relay->Detach();
      delete this;
    }
    std::shared_ptr<Relay> relay;
  };

  explicit Relay(const Api& api) : detokenizer_(*api.tokenizer, true) {}

  Reactor* MakeReactor() {
    reactor_ = new Reactor(shared_from_this());
    return reactor_;
  }

  void Begin(const MeshView::Target& target, GenerateRequest request, const rpc::Identity& identity,
             std::chrono::microseconds budget) {
    auto wake = [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Pump();
    };
    auto generation =
        std::make_unique<Generation>(target.channel, std::move(request), identity, budget, wake);
    {
      std::lock_guard lock(mutex_);
      generation_ = std::move(generation);
    }
    Pump();
  }

  void Refuse(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    finished_ = true;
    reactor_->Finish(rpc::ToGrpcStatus(status));
  }

 private:
  void Written() {
    {
      std::lock_guard lock(mutex_);
      queue_.pop_front();
      writing_ = false;
    }
    Pump();
  }
  void Cancelled() {
    std::lock_guard lock(mutex_);
    if (generation_) generation_->Cancel();
  }
  void Detach() {
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
    generation_.reset();
  }

  void Pump() {
    std::lock_guard lock(mutex_);
    if (!generation_ || reactor_ == nullptr || finished_) return;
    Generation::Batch batch = generation_->Take();
    for (GenerateResponse& event : batch.events) {
      if (event.has_token()) event.mutable_token()->set_text(detokenizer_.Push(event.token().id()));
      queue_.push_back(std::move(event));
    }
    if (batch.ended) end_ = batch.status;
    if (writing_) return;
    if (!queue_.empty()) {
      writing_ = true;
      reactor_->StartWrite(&queue_.front());
    } else if (end_) {
      finished_ = true;
      reactor_->Finish(rpc::ToGrpcStatus(*end_));
    }
  }

  std::mutex mutex_;
  Reactor* reactor_ = nullptr;              // guarded by mutex_; null once the call is over
  model::Detokenizer detokenizer_;          // guarded by mutex_
  std::unique_ptr<Generation> generation_;  // guarded by mutex_
  std::deque<GenerateResponse> queue_;      // guarded by mutex_; bounded by Generation
  std::optional<absl::Status> end_;         // guarded by mutex_
  bool writing_ = false;                    // guarded by mutex_
  bool finished_ = false;                   // guarded by mutex_
};

}  // namespace

grpc::ServerWriteReactor<GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const GenerateRequest* request) {
  const auto relay = std::make_shared<Relay>(api_);
  auto* reactor = relay->MakeReactor();
  const auto identity = rpc::IdentityOf(*context);
  absl::Status status = identity.status();
  if (status.ok()) status = rpc::RequireDeadline(*context);
  auto tokenized = status.ok() ? Tokenized(api_, *request) : absl::StatusOr<GenerateRequest>(status);
  if (!tokenized.ok()) {
    relay->Refuse(tokenized.status());
    return reactor;
  }
  const auto target = api_.mesh->Pick();
  if (!target.ok()) {
    relay->Refuse(target.status());
    return reactor;
  }
  relay->Begin(*target, *std::move(tokenized), *identity, rpc::Remaining(*context));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::ListModels(
    grpc::CallbackServerContext* context, const inference::v1::ListModelsRequest* /*request*/,
    inference::v1::ListModelsResponse* response) {
  auto* served = response->add_models();
  served->mutable_model()->set_model(api_.model);
  served->mutable_model()->set_revision(api_.mesh->revision());
  served->set_context_length(api_.config.max_position_embeddings);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(rpc::RequireDeadline(*context)));
  return reactor;
}

}  // namespace expertmesh::gateway
