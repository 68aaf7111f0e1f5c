#include "gateway/inference_service.h"

#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gateway/core/http_target.h"
#include "gateway/generation.h"
#include "gateway/request_log.h"
#include "model/tokenizer/detokenizer.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::gateway {
namespace {

using inference::v1::GenerateRequest;
using inference::v1::GenerateResponse;

constexpr size_t kNameShownMax = 100;

// Text segments become token runs; everything else stays.
absl::StatusOr<GenerateRequest> Tokenized(const Api& api, const GenerateRequest& request,
                                          const std::string& request_id) {
  GenerateRequest out = request;
  if (out.model().model().empty()) out.mutable_model()->set_model(api.model);
  if (out.model().model() != api.model) {
    return base::Error(base::Reason::kModelNotFound,
                       absl::StrCat("model '", Printable(out.model().model(), kNameShownMax),
                                    "' is not served here, but '", api.model, "'"));
  }
  if (out.request_id().empty()) out.set_request_id(request_id);
  if (!out.request_id().empty() && !rpc::IsIdentityValue(out.request_id())) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("request_id must have 1 to ", rpc::kIdentityBytesMax,
                                    " characters of A-Z a-z 0-9 . _ -"));
  }
  for (int i = 0; i < out.segments_size(); ++i) {
    auto& segment = *out.mutable_segments(i);
    if (segment.has_media()) {
      return base::Error(base::Reason::kUnsupported, "the model takes no media");
    }
    if (!segment.has_text() && !segment.has_tokens()) {
      return base::Error(base::Reason::kInvalidArgument,
                         absl::StrCat("segments[", i, "] is empty; give text or tokens"));
    }
    if (!segment.has_text()) continue;
    EM_ASSIGN_OR_RETURN(const auto ids, api.tokenizer->Encode(segment.text().text(), false));
    segment.mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  return out;
}

// Passes a worker's events on, one write at a time; takes more of them only when all are written.
// Shared by gRPC's reactor and the worker's call, whose last wake may come after the reactor's end.
class Relay final : public std::enable_shared_from_this<Relay> {
 public:
  // What gRPC calls; deletes itself in OnDone.
  struct Reactor final : grpc::ServerWriteReactor<GenerateResponse> {
    explicit Reactor(std::shared_ptr<Relay> r) : relay(std::move(r)) {}
    void OnWriteDone(bool /*ok*/) override { relay->Written(); }
    void OnCancel() override { relay->Cancelled(); }
    void OnDone() override {
      relay->Detach();
      delete this;
    }
    const std::shared_ptr<Relay> relay;
  };

  Relay(const Api& api, std::string request_id) : detokenizer_(*api.tokenizer, true) {
    record_.request_id = std::move(request_id);
    record_.endpoint = "grpc_generate";
  }

  Reactor* MakeReactor() {
    reactor_ = new Reactor(shared_from_this());
    return reactor_;
  }

  void Begin(const MeshView::Target& target, GenerateRequest request, const rpc::Identity& identity,
             std::chrono::microseconds budget) {
    {
      std::lock_guard lock(mutex_);
      if (reactor_ == nullptr) return;
      record_.worker = target.worker;
      generation_ = std::make_unique<Generation>(target.channel, target.calls, std::move(request),
                                                 identity, budget, [weak = weak_from_this()] {
                                                   if (const auto self = weak.lock()) self->Pump();
                                                 });
      if (cancelled_) generation_->Cancel();
    }
    Pump();
  }

  void Refuse(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    FinishLocked(status);
  }

 private:
  void FinishLocked(const absl::Status& status) {
    finished_ = true;
    record_.status = absl::StatusCodeToString(status.code());
    if (!status.ok()) record_.reason = base::ReasonName(base::ReasonOf(status));
    reactor_->Finish(rpc::ToGrpcStatus(status));
  }

  void Note(GenerateResponse& event) {
    if (event.has_started()) record_.prompt_tokens = event.started().prompt_tokens();
    if (event.has_finished()) {
      const bool stop = event.finished().reason() == inference::v1::FINISH_REASON_STOP;
      record_.reason = stop ? "stop" : "length";
    }
    if (!event.has_token()) return;
    ++record_.completion_tokens;
    event.mutable_token()->set_text(detokenizer_.Push(event.token().id()));
  }

  void Written() {
    {
      std::lock_guard lock(mutex_);
      ++next_;
      writing_ = false;
    }
    Pump();
  }

  void Cancelled() {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (generation_) generation_->Cancel();
  }

  void Detach() {
    std::unique_ptr<Generation> last;  // ends outside of the lock
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
    last = std::move(generation_);
    LogRequest(record_);
  }

  void Pump() {
    std::lock_guard lock(mutex_);
    if (generation_ == nullptr || reactor_ == nullptr || finished_ || writing_) return;
    if (next_ == batch_.events.size() && !batch_.ended) {
      batch_ = generation_->Take();
      next_ = 0;
    }
    if (next_ < batch_.events.size()) {
      GenerateResponse& event = batch_.events[next_];
      Note(event);
      writing_ = true;
      reactor_->StartWrite(&event);
    } else if (batch_.ended) {
      FinishLocked(batch_.status);
    }
  }

  std::mutex mutex_;
  Reactor* reactor_ = nullptr;              // guarded by mutex_; null once the call is over
  model::Detokenizer detokenizer_;          // guarded by mutex_
  RequestRecord record_;                    // guarded by mutex_
  std::unique_ptr<Generation> generation_;  // guarded by mutex_
  Generation::Batch batch_;                 // guarded by mutex_
  size_t next_ = 0;                         // guarded by mutex_: first event not written
  bool writing_ = false;                    // guarded by mutex_
  bool cancelled_ = false;                  // guarded by mutex_
  bool finished_ = false;                   // guarded by mutex_
};

}  // namespace

grpc::ServerWriteReactor<GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const GenerateRequest* request) {
  const auto identity = rpc::IdentityOf(*context);
  const auto relay =
      std::make_shared<Relay>(api_, identity.ok() ? identity->request_id : std::string());
  auto* reactor = relay->MakeReactor();
  const auto refuse = [&](const absl::Status& status) {
    relay->Refuse(status);
    return reactor;
  };
  if (!identity.ok()) return refuse(identity.status());
  const absl::Status deadline = rpc::RequireDeadline(*context);
  if (!deadline.ok()) return refuse(deadline);
  auto tokenized = Tokenized(api_, *request, identity->request_id);
  if (!tokenized.ok()) return refuse(tokenized.status());
  const auto target = api_.mesh->Pick();
  if (!target.ok()) return refuse(target.status());
  relay->Begin(*target, *std::move(tokenized), *identity, rpc::Remaining(*context));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::ListModels(
    grpc::CallbackServerContext* context, const inference::v1::ListModelsRequest* /*request*/,
    inference::v1::ListModelsResponse* response) {
  const MeshView::Target worker = api_.mesh->Any();
  auto* served = response->add_models();
  served->mutable_model()->set_model(api_.model);
  served->mutable_model()->set_revision(worker.revision);
  served->set_context_length(api_.config.max_position_embeddings);
  served->set_profile(worker.profile);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(rpc::RequireDeadline(*context)));
  return reactor;
}

}  // namespace expertmesh::gateway
