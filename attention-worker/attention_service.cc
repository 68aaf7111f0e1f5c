#include "attention-worker/attention_service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <mutex>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention-worker/constraint_compiler.h"
#include "services/base/random.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Reason;
using inference::v1::GenerateRequest;
using inference::v1::GenerateResponse;

namespace {

absl::Status TakePrompt(const GenerateRequest& request, std::vector<uint32_t>& prompt) {
  for (int i = 0; i < request.segments_size(); ++i) {
    const auto& segment = request.segments(i);
    if (segment.has_text()) {
      return Error(Reason::kUnsupported,
                   "this worker takes token runs only; send text through the gateway");
    }
    if (segment.has_media()) return Error(Reason::kUnsupported, "the model takes no media");
    if (!segment.has_tokens()) {
      return Error(Reason::kInvalidArgument, absl::StrCat("segments[", i, "] is empty"));
    }
    prompt.insert(prompt.end(), segment.tokens().ids().begin(), segment.tokens().ids().end());
  }
  return absl::OkStatus();
}

model::SamplingParams ToSampling(const inference::v1::SamplingParams& from) {
  model::SamplingParams to;
  to.temperature = from.temperature();
  to.top_k = from.top_k();
  to.top_p = from.has_top_p() ? from.top_p() : 1.0f;
  to.min_p = from.min_p();
  to.presence_penalty = from.presence_penalty();
  to.frequency_penalty = from.frequency_penalty();
  to.repetition_penalty = from.has_repetition_penalty() ? from.repetition_penalty() : 1.0f;
  for (const auto& bias : from.logit_bias()) {
    to.logit_bias.emplace_back(bias.token_id(), bias.bias());
  }
  return to;
}

absl::Status TakeForcedExperts(const inference::v1::DebugOptions& debug,
                               const WorkerIdentity& identity, LaneRequest& lane) {
  for (const auto& forced : debug.forced_selections()) {
    if (forced.layer() >= identity.layers ||
        forced.expert_ids_size() != static_cast<int>(identity.top_k)) {
      return Error(Reason::kInvalidArgument,
                   absl::StrCat("debug.forced_selections: layer ", forced.layer(), " with ",
                                forced.expert_ids_size(), " experts; the model chooses ",
                                identity.top_k, " in layers below ", identity.layers));
    }
    auto& layers = lane.forced_experts[forced.position()];
    layers.resize(identity.layers);
    auto& experts = layers[forced.layer()];
    experts.assign(forced.expert_ids().begin(), forced.expert_ids().end());
    std::sort(experts.begin(), experts.end());
  }
  return absl::OkStatus();
}

absl::Status TakeDebug(const GenerateRequest& request, const WorkerIdentity& identity,
                       LaneRequest& lane) {
  if (!request.has_debug()) return absl::OkStatus();
  if (!identity.debug_api) {
    return Error(Reason::kDebugApiDisabled, "the debug block needs a worker with --debug-api");
  }
  const auto& debug = request.debug();
  lane.forced_tokens.assign(debug.forced_tokens().begin(), debug.forced_tokens().end());
  lane.ignore_eos = debug.ignore_eos();
  lane.first_position = debug.first_position();
  lane.return_logits_hash = debug.return_logits_hash();
  lane.return_logits = debug.return_logits();
  lane.return_state_hash = debug.return_state_hash();
  lane.bypass_prefix_cache = debug.bypass_prefix_cache();
  return TakeForcedExperts(debug, identity, lane);
}

absl::Status TakeConstraint(const GenerateRequest& request, const WorkerIdentity& identity,
                            LaneRequest& lane) {
  if (!request.has_constraint()) return absl::OkStatus();
  if (identity.constraints == nullptr) {
    return Error(Reason::kUnsupported, "constraint: the model directory has no tokenizer.json");
  }
  EM_ASSIGN_OR_RETURN(lane.grammar, identity.constraints->Compile(request.constraint()));
  lane.trie = identity.constraints->trie();
  return absl::OkStatus();
}

std::string NewLaneName() {
  return absl::StrCat("lane-", absl::Hex(base::EntropyU64(), absl::kZeroPad16),
                      absl::Hex(base::EntropyU64(), absl::kZeroPad16));
}

// Streams one lane's events. Lives until OnDone; the lane's sink keeps it through a shared_ptr,
// since the engine may speak after the call is over.
class GenerateStream final : public LaneSink, public std::enable_shared_from_this<GenerateStream> {
 public:
  // What gRPC owns: deletes itself in OnDone.
  struct Reactor final : grpc::ServerWriteReactor<GenerateResponse> {
    explicit Reactor(std::shared_ptr<GenerateStream> s) : stream(std::move(s)) {}
    void OnWriteDone(bool /*ok*/) override { stream->Written(); }
    void OnCancel() override { stream->Cancelled(); }
    void OnDone() override {
      stream->Detach();
      delete this;
    }
    std::shared_ptr<GenerateStream> stream;
  };

  GenerateStream(AttentionEngine& engine, std::string request_id)
      : engine_(engine), request_id_(std::move(request_id)) {}

  Reactor* MakeReactor() {
    reactor_ = new Reactor(shared_from_this());
    return reactor_;
  }

  void Begin(LaneRequest request, GenerateResponse started) {
    prompt_tokens_ = request.prompt.size();
    started_ = std::move(started);
    const auto lane = engine_.Submit(std::move(request), shared_from_this());
    if (!lane.ok()) {
      End(lane.status());
      return;
    }
    bool cancelled = false;
    {
      std::lock_guard lock(mutex_);
      lane_ = *lane;
      cancelled = cancelled_;
    }
    if (cancelled) engine_.Cancel(*lane);
  }

  // The stream goes on with a lane that was parked.
  void Resumes(const std::string& lane) {
    std::lock_guard lock(mutex_);
    resumed_ = lane;
  }

  // The end of the stream, good or bad; once.
  void End(const absl::Status& status) {
    const auto time = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - start_);
    spdlog::info(
        "request id={} status={} reason={} prompt_tokens={} cached_tokens={} "
        "completion_tokens={} ms={}",
        request_id_, absl::StatusCodeToString(status.code()),
        status.ok() ? finish_reason_ : base::ReasonName(base::ReasonOf(status)), prompt_tokens_,
        cached_tokens_, completion_tokens_, time.count());
    std::lock_guard lock(mutex_);
    end_ = rpc::ToGrpcStatus(status);
    ended_ = true;
    PumpLocked();
  }

  void OnStart(size_t cached_tokens) override {
    cached_tokens_ = cached_tokens;
    started_.mutable_started()->set_cached_prompt_tokens(static_cast<uint32_t>(cached_tokens));
    Push(std::move(started_));
  }

  void OnToken(const LaneToken& token) override {
    ++completion_tokens_;
    GenerateResponse response;
    auto* out = response.mutable_token();
    out->set_id(token.id);
    out->set_position(token.position);
    out->set_logprob(token.logprob);
    out->set_logits_hash(token.logits_hash);
    for (const model::TokenLogprob& likely : token.top_logprobs) {
      auto* added = out->add_top_logprobs();
      added->set_id(likely.id);
      added->set_logprob(likely.logprob);
    }
    out->mutable_logits()->Add(token.logits.begin(), token.logits.end());
    Push(std::move(response));
  }

  void OnEnd(const absl::StatusOr<LaneEnd>& end) override {
    if (!end.ok()) {
      End(end.status());
      return;
    }
    GenerateResponse response;
    auto* out = response.mutable_finished();
    switch (end->reason) {
      case FinishReason::kStop:
        out->set_reason(inference::v1::FINISH_REASON_STOP);
        finish_reason_ = "stop";
        break;
      case FinishReason::kLength:
        out->set_reason(inference::v1::FINISH_REASON_LENGTH);
        finish_reason_ = "length";
        break;
      case FinishReason::kParked:
        out->set_reason(inference::v1::FINISH_REASON_PARKED);
        finish_reason_ = "parked";
        break;
    }
    out->set_prompt_tokens(static_cast<uint32_t>(end->prompt_tokens));
    out->set_completion_tokens(static_cast<uint32_t>(end->generated));
    for (uint64_t hash : end->state_hashes) out->add_state_hashes(hash);
    Push(std::move(response));
    End(absl::OkStatus());
  }

 private:
  void Push(GenerateResponse response) {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(response));
    PumpLocked();
  }

  // A second StartWrite before OnWriteDone aborts the process, so one at a time.
  void PumpLocked() {
    if (reactor_ == nullptr || writing_ || finished_) return;
    if (!queue_.empty() && !cancelled_) {
      writing_ = true;
      reactor_->StartWrite(&queue_.front());
    } else if (ended_ || cancelled_) {
      finished_ = true;
      reactor_->Finish(ended_ ? end_ : grpc::Status::CANCELLED);
    }
  }

  void Written() {
    std::lock_guard lock(mutex_);
    queue_.pop_front();
    writing_ = false;
    PumpLocked();
  }

  void Cancelled() {
    base::LaneId lane{};
    std::string resumed;
    {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
      if (ended_) return PumpLocked();  // a parked lane waits for another call
      lane = lane_;
      resumed = resumed_;
      PumpLocked();
    }
    if (lane.value != 0) engine_.Cancel(lane);
    if (!resumed.empty()) engine_.Cancel(resumed);
  }

  void Detach() {
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
  }

  AttentionEngine& engine_;
  const std::string request_id_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  // Of gRPC's thread until the lane begins, then of the engine's.
  GenerateResponse started_;
  size_t prompt_tokens_ = 0;
  size_t cached_tokens_ = 0;
  size_t completion_tokens_ = 0;
  std::string_view finish_reason_;
  std::mutex mutex_;
  Reactor* reactor_ = nullptr;          // guarded by mutex_; null once the call is over
  base::LaneId lane_{};                 // guarded by mutex_
  std::string resumed_;                 // guarded by mutex_; name of the lane, if it was parked
  std::deque<GenerateResponse> queue_;  // guarded by mutex_; at most max_tokens + 2
  grpc::Status end_;                    // guarded by mutex_
  bool writing_ = false;                // guarded by mutex_
  bool ended_ = false;                  // guarded by mutex_
  bool cancelled_ = false;              // guarded by mutex_
  bool finished_ = false;               // guarded by mutex_
};

}  // namespace

absl::StatusOr<LaneRequest> ToLaneRequest(const GenerateRequest& request,
                                          const WorkerIdentity& identity, base::Instant now,
                                          base::Micros budget) {
  const auto& model = request.model();
  if ((!model.model().empty() && model.model() != identity.model) ||
      (!model.revision().empty() && model.revision() != identity.revision)) {
    return Error(Reason::kModelNotFound,
                 absl::StrCat("model \"", model.model(), "\" revision \"", model.revision(),
                              "\" is not served here, but \"", identity.model, "\" revision \"",
                              identity.revision, "\""));
  }
  if (!request.request_id().empty() && !rpc::IsIdentityValue(request.request_id())) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("request_id must have 1 to ", rpc::kIdentityBytesMax,
                              " characters of A-Z a-z 0-9 . _ -"));
  }
  LaneRequest lane;
  EM_RETURN_IF_ERROR(TakePrompt(request, lane.prompt));
  lane.sampling = ToSampling(request.sampling());
  lane.seed = request.sampling().has_seed() ? request.sampling().seed() : base::EntropyU64();
  lane.top_logprobs = request.top_logprobs();
  lane.choice = request.choice();
  lane.max_new_tokens = request.max_tokens();
  lane.stop_tokens.assign(request.stop_token_ids().begin(), request.stop_token_ids().end());
  lane.deadline = now + budget;
  EM_RETURN_IF_ERROR(TakeDebug(request, identity, lane));
  EM_RETURN_IF_ERROR(TakeConstraint(request, identity, lane));
  lane.park_after = request.park_after_tokens();
  EM_RETURN_IF_ERROR(
      CheckRequest(lane, {identity.vocab_size, identity.context, identity.lane_tokens}));
  lane.name = NewLaneName();
  GenerateRequest record = request;
  record.mutable_sampling()->set_seed(lane.seed);
  record.set_max_tokens(lane.max_new_tokens);
  record.clear_park_after_tokens();
  lane.record = record.SerializeAsString();
  return lane;
}

void KeepVersion(LaneRequest& lane, std::shared_ptr<const MemoryPin> pin) {
  GenerateRequest record;
  if (record.ParseFromString(lane.record)) {
    record.set_engram_version(pin->version);
    lane.record = record.SerializeAsString();
  }
  lane.memory = std::move(pin);
}

absl::Status GenerateService::Resume(const GenerateRequest& request, const std::string& tenant,
                                     base::Micros budget, const std::shared_ptr<LaneSink>& sink) {
  if (request.segments_size() > 0 || request.has_sampling() || request.max_tokens() != 0 ||
      request.stop_token_ids_size() > 0 || request.top_logprobs() != 0 ||
      request.has_constraint() || request.has_debug()) {
    return Error(Reason::kInvalidArgument,
                 "with resume_lane only model, request_id and park_after_tokens may be set");
  }
  engine_.Resume(request.resume_lane(), tenant, request.park_after_tokens(), clock_.Now() + budget,
                 sink);
  return absl::OkStatus();
}

grpc::ServerWriteReactor<GenerateResponse>* GenerateService::Generate(
    grpc::CallbackServerContext* context, const GenerateRequest* request) {
  const auto identity = rpc::IdentityOf(*context);
  std::string request_id = identity.ok() ? identity->request_id : std::string();
  if (request_id.empty() && rpc::IsIdentityValue(request->request_id())) {
    request_id = request->request_id();
  }
  const auto stream = std::make_shared<GenerateStream>(engine_, std::move(request_id));
  auto* reactor = stream->MakeReactor();
  const auto refuse = [&](const absl::Status& status) {
    stream->End(status);
    return reactor;
  };
  if (!identity.ok()) return refuse(identity.status());
  if (const absl::Status deadline = rpc::RequireDeadline(*context); !deadline.ok()) {
    return refuse(deadline);
  }
  if (const absl::Status admitted = admit_(); !admitted.ok()) return refuse(admitted);
  if (!request->resume_lane().empty()) {
    stream->Resumes(request->resume_lane());
    const absl::Status resumed =
        Resume(*request, identity->tenant, rpc::Remaining(*context), stream);
    if (!resumed.ok()) return refuse(resumed);
    return reactor;
  }
  auto lane = ToLaneRequest(*request, identity_, clock_.Now(), rpc::Remaining(*context));
  if (!lane.ok()) return refuse(lane.status());
  if (stores_ == nullptr && !request->engram_version().empty()) {
    return refuse(Error(Reason::kModelHasNoMemory,
                        "engram_version is set, but this worker reads no Engram store"));
  }
  lane->tenant = identity->tenant;
  GenerateResponse response;
  auto* started = response.mutable_started();
  started->mutable_model()->set_model(identity_.model);
  started->mutable_model()->set_revision(identity_.revision);
  started->set_seed(lane->seed);
  started->set_prompt_tokens(static_cast<uint32_t>(lane->prompt.size()));
  started->set_profile(identity_.profile);
  started->set_worker(identity_.name);
  started->set_lane(lane->name);
  if (stores_ == nullptr) {
    stream->Begin(*std::move(lane), std::move(response));
    return reactor;
  }
  const auto waiting = std::make_shared<LaneRequest>(*std::move(lane));
  stores_->Pin(request->engram_version(),
               [stream, waiting, response = std::move(response)](
                   absl::StatusOr<std::shared_ptr<const MemoryPin>> pin) mutable {
                 if (!pin.ok()) return stream->End(pin.status());
                 response.mutable_started()->set_engram_version((*pin)->version);
                 KeepVersion(*waiting, *std::move(pin));
                 stream->Begin(std::move(*waiting), std::move(response));
               });
  return reactor;
}

grpc::ServerUnaryReactor* GenerateService::ListModels(
    grpc::CallbackServerContext* context, const inference::v1::ListModelsRequest* /*request*/,
    inference::v1::ListModelsResponse* response) {
  auto* served = response->add_models();
  served->mutable_model()->set_model(identity_.model);
  served->mutable_model()->set_revision(identity_.revision);
  served->set_context_length(std::min(identity_.context, identity_.lane_tokens));
  served->set_profile(identity_.profile);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(rpc::RequireDeadline(*context)));
  return reactor;
}

}  // namespace expertmesh::attention_worker
