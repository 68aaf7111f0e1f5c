#include "gateway/api.h"

#include "absl/strings/str_cat.h"
#include "services/base/random.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

using base::Error;
using base::Reason;

namespace {

absl::StatusOr<std::vector<uint32_t>> EncodePrompt(const Api& api, const ApiRequest& request) {
  if (request.chat) {
    if (api.encoding == model::ChatEncoding::kNone) {
      return Error(Reason::kChatEncodingUnknown,
                   absl::StrCat("model ", api.model,
                                " has no known chat encoding; use /v1/completions or "
                                "--chat-encoding"));
    }
    return model::EncodeChat(*api.tokenizer, api.encoding, request.messages, {});
  }
  if (!request.prompt_tokens.empty()) {
    for (uint32_t id : request.prompt_tokens) {
      if (id >= api.config.vocab_size) {
        return Error(Reason::kInvalidArgument,
                     absl::StrCat("prompt: token id ", id, " is not in the vocabulary"));
      }
    }
    return request.prompt_tokens;
  }
  std::vector<uint32_t> ids;
  if (const auto bos = api.config.bos_token_id) ids.push_back(*bos);
  EM_ASSIGN_OR_RETURN(const auto text, api.tokenizer->Encode(request.prompt, false));
  ids.insert(ids.end(), text.begin(), text.end());
  return ids;
}

}  // namespace

absl::StatusOr<inference::v1::GenerateRequest> ToGenerateRequest(const Api& api,
                                                                 const ApiRequest& request) {
  EM_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, EncodePrompt(api, request));
  const uint64_t context = api.config.max_position_embeddings;
  if (ids.size() >= context || ids.size() + request.max_tokens > context) {
    return Error(Reason::kContextLengthExceeded,
                 absl::StrCat("This model's maximum context length is ", context,
                              " tokens. The prompt has ", ids.size(), " and ", request.max_tokens,
                              " were asked for the answer."));
  }
  inference::v1::GenerateRequest out;
  out.mutable_model()->set_model(api.model);
  out.add_segments()->mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  out.mutable_sampling()->set_temperature(request.temperature);
  out.mutable_sampling()->set_top_p(request.top_p);
  out.mutable_sampling()->set_top_k(request.top_k);
  out.mutable_sampling()->set_seed(request.seed.value_or(base::EntropyU64()));
  out.set_max_tokens(request.max_tokens);
  return out;
}

}  // namespace expertmesh::gateway
