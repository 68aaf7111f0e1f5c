#include "attention-worker/core/lane.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Reason;

namespace {

absl::Status CheckTokens(const std::vector<uint32_t>& ids, uint32_t vocab, const char* field) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= vocab) {
      return Error(Reason::kInvalidArgument, absl::StrCat(field, "[", i, "] is ", ids[i],
                                                          ", the vocabulary ends at ", vocab - 1));
    }
  }
  return absl::OkStatus();
}

constexpr uint32_t kTopLogprobsMax = 20;

// `low` and `high` are allowed.
absl::Status CheckRange(const char* field, float value, float low, float high) {
  if (std::isfinite(value) && value >= low && value <= high) return absl::OkStatus();
  return Error(Reason::kInvalidArgument,
               absl::StrCat("sampling.", field, " must be between ", low, " and ", high));
}

absl::Status CheckSampling(const model::SamplingParams& s, uint32_t vocab) {
  EM_RETURN_IF_ERROR(CheckRange("temperature", s.temperature, 0, 100));
  EM_RETURN_IF_ERROR(CheckRange("min_p", s.min_p, 0, 1));
  EM_RETURN_IF_ERROR(CheckRange("presence_penalty", s.presence_penalty, -2, 2));
  EM_RETURN_IF_ERROR(CheckRange("frequency_penalty", s.frequency_penalty, -2, 2));
  if (!std::isfinite(s.top_p) || s.top_p <= 0 || s.top_p > 1) {
    return Error(Reason::kInvalidArgument, "sampling.top_p must be above 0 and at most 1");
  }
  if (!std::isfinite(s.repetition_penalty) || s.repetition_penalty <= 0 ||
      s.repetition_penalty > 100) {
    return Error(Reason::kInvalidArgument,
                 "sampling.repetition_penalty must be above 0 and at most 100");
  }
  for (const auto& [id, bias] : s.logit_bias) {
    EM_RETURN_IF_ERROR(CheckRange("logit_bias", bias, -100, 100));
    if (id >= vocab) {
      return Error(Reason::kInvalidArgument, absl::StrCat("sampling.logit_bias names token ", id,
                                                          ", the vocabulary ends at ", vocab - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRequest(LaneRequest& request, const LaneBounds& bounds) {
  if (request.prompt.empty()) {
    return Error(Reason::kInvalidArgument, "the prompt is empty; give at least one token");
  }
  EM_RETURN_IF_ERROR(CheckTokens(request.prompt, bounds.vocab_size, "prompt"));
  EM_RETURN_IF_ERROR(CheckTokens(request.forced_tokens, bounds.vocab_size, "forced_tokens"));
  EM_RETURN_IF_ERROR(CheckTokens(request.history, bounds.vocab_size, "generated"));
  EM_RETURN_IF_ERROR(CheckTokens(request.stop_tokens, bounds.vocab_size, "stop_token_ids"));
  EM_RETURN_IF_ERROR(CheckSampling(request.sampling, bounds.vocab_size));
  if (request.top_logprobs > kTopLogprobsMax) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("top_logprobs may be at most ", kTopLogprobsMax));
  }
  const uint64_t used = request.first_position + request.prompt.size();
  if (used < request.first_position || used >= bounds.context ||
      used + request.max_new_tokens > bounds.context) {
    return Error(Reason::kContextLengthExceeded,
                 absl::StrCat("the context holds ", bounds.context, " tokens; the prompt has ",
                              request.prompt.size(), " from position ", request.first_position,
                              " and ", request.max_new_tokens, " more were asked for"));
  }
  const uint64_t prompt = request.prompt.size();
  if (prompt >= bounds.lane_tokens || prompt + request.max_new_tokens > bounds.lane_tokens) {
    return Error(Reason::kContextLengthExceeded,
                 absl::StrCat("this worker holds sequences of at most ", bounds.lane_tokens,
                              " tokens; the prompt has ", prompt, " and ", request.max_new_tokens,
                              " more were asked for; ask for fewer, or raise its --kv-pages"));
  }
  if (request.max_new_tokens == 0) {
    request.max_new_tokens =
        static_cast<uint32_t>(std::min(bounds.context - used, bounds.lane_tokens - prompt));
  }
  if (request.history.size() >= request.max_new_tokens) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("the lane has generated ", request.history.size(), " of ",
                              request.max_new_tokens, " tokens already"));
  }
  return absl::OkStatus();
}

Lane::Lane(base::LaneId id, LaneRequest request) : id_(id), request_(std::move(request)) {
  tokens_ = request_.prompt;
  tokens_.insert(tokens_.end(), request_.history.begin(), request_.history.end());
  if (!request_.grammar) return;
  matcher_.emplace(request_.grammar, *request_.trie);
  for (const uint32_t token : request_.history) {
    off_grammar_ = off_grammar_ || !matcher_->Accept(token);
  }
}

const std::vector<std::vector<uint16_t>>* Lane::ForcedExperts(size_t index) const {
  const auto it = request_.forced_experts.find(PositionOf(index));
  return it == request_.forced_experts.end() ? nullptr : &it->second;
}

bool Lane::SharesState() const {
  return !request_.bypass_prefix_cache && request_.forced_experts.empty();
}

void Lane::KeepBlocks(const BlockKey& root, size_t block_tokens) {
  blocks_.emplace(root, block_tokens);
  blocks_->Extend(tokens_);
}

std::optional<uint32_t> Lane::ForcedNext() const {
  const size_t next = generated();
  if (next >= request_.forced_tokens.size()) return std::nullopt;
  return request_.forced_tokens[next];
}

std::optional<FinishReason> Lane::Append(uint32_t token, const std::vector<uint32_t>& end_tokens) {
  tokens_.push_back(token);
  if (blocks_) blocks_->Extend(tokens_);
  const auto has = [&](const std::vector<uint32_t>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  const bool ends = has(end_tokens);
  if (matcher_ && !ends && !matcher_->Accept(token)) off_grammar_ = true;
  if (matcher_ && ends && !matcher_->complete()) off_grammar_ = true;
  if (!request_.ignore_eos && (ends || has(request_.stop_tokens))) return FinishReason::kStop;
  if (matcher_ && matcher_->finished()) return FinishReason::kStop;  // nothing may follow
  if (generated() >= request_.max_new_tokens) return FinishReason::kLength;
  if (park_after_ != 0 && generated() >= park_after_) return FinishReason::kParked;
  return std::nullopt;
}

}  // namespace expertmesh::attention_worker
