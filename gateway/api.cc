#include "gateway/api.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gateway/core/http_target.h"
#include "model/tokenizer/special_tokens.h"
#include "services/base/random.h"
#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kNameShownMax = 100;

// R1 has no other mode.
bool Thinks(const Api& api, const ApiRequest& request) {
  return request.chat && (request.thinking || api.encoding == model::ChatEncoding::kR1);
}

absl::StatusOr<std::vector<uint32_t>> EncodeMessages(const Api& api, const ApiRequest& request) {
  if (api.encoding == model::ChatEncoding::kNone) {
    return Error(Reason::kChatEncodingUnknown,
                 absl::StrCat("model ", api.model,
                              " has no known chat encoding; use /v1/completions, or start the "
                              "gateway with --chat-encoding"),
                 {{"param", "messages"}});
  }
  if (request.thinking && !model::HasThinking(api.encoding)) {
    return Error(Reason::kUnsupported, absl::StrCat("model ", api.model, " has no thinking mode"),
                 {{"param", "thinking"}});
  }
  return model::EncodeChat(*api.tokenizer, api.encoding, request.messages,
                           {.thinking = request.thinking, .texts = &api.chat_texts});
}

absl::StatusOr<std::vector<uint32_t>> EncodePrompt(const Api& api, const ApiRequest& request) {
  for (size_t i = 0; i < request.prompt_tokens.size(); ++i) {
    if (request.prompt_tokens[i] >= api.config.vocab_size) {
      return Error(Reason::kInvalidArgument,
                   absl::StrCat("prompt[", i, "]: token id ", request.prompt_tokens[i],
                                " is not in the vocabulary of ", api.config.vocab_size),
                   {{"param", "prompt"}});
    }
  }
  if (!request.prompt_tokens.empty()) return request.prompt_tokens;
  std::vector<uint32_t> ids;
  if (const auto bos = api.config.bos_token_id) ids.push_back(*bos);
  EM_ASSIGN_OR_RETURN(const std::vector<uint32_t> text,
                      api.tokenizer->Encode(request.prompt, false));
  ids.insert(ids.end(), text.begin(), text.end());
  if (ids.empty()) {
    return Error(Reason::kInvalidArgument, "prompt must not be empty", {{"param", "prompt"}});
  }
  return ids;
}

absl::Status CheckContext(const Api& api, const ApiRequest& request, uint64_t prompt_tokens) {
  const uint64_t context = api.config.max_position_embeddings;
  const uint64_t wanted = prompt_tokens + std::max(request.max_tokens, 1u);
  if (wanted <= context) return absl::OkStatus();
  return Error(Reason::kContextLengthExceeded,
               absl::StrCat("This model's maximum context length is ", context,
                            " tokens. However, you requested ", wanted, " tokens (", prompt_tokens,
                            " in the ", request.chat ? "messages" : "prompt", ", ",
                            wanted - prompt_tokens, " in the completion)."),
               {{"param", request.chat ? "messages" : "prompt"}});
}

}  // namespace

absl::StatusOr<inference::v1::GenerateRequest> ToGenerateRequest(const Api& api,
                                                                 const ApiRequest& request) {
  if (request.model != api.model) {
    return Error(Reason::kModelNotFound,
                 absl::StrCat("The model '", Printable(request.model, kNameShownMax),
                              "' does not exist; this mesh serves '", api.model, "'"),
                 {{"param", "model"}});
  }
  EM_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids,
                      request.chat ? EncodeMessages(api, request) : EncodePrompt(api, request));
  EM_RETURN_IF_ERROR(CheckContext(api, request, ids.size()));
  inference::v1::GenerateRequest out;
  out.mutable_model()->set_model(api.model);
  out.add_segments()->mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  out.mutable_sampling()->set_temperature(request.temperature);
  out.mutable_sampling()->set_top_p(request.top_p);
  out.mutable_sampling()->set_top_k(request.top_k);
  out.mutable_sampling()->set_seed(request.seed ? *request.seed : base::EntropyU64());
  out.set_max_tokens(request.max_tokens);
  return out;
}

AnswerOptions ToAnswerOptions(const Api& api, const ApiRequest& request) {
  AnswerOptions options{.stream = request.stream, .stop = request.stop};
  if (Thinks(api, request)) {
    options.end_of_reasoning = api.tokenizer->IdOf(model::special::kEndThink);
  }
  return options;
}

}  // namespace expertmesh::gateway
