#include "gateway/api.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gateway/answer_constraint.h"
#include "gateway/core/http_target.h"
#include "model/tokenizer/special_tokens.h"
#include "services/base/random.h"
#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kNameShownMax = 100;

// R1 has no other mode. An effort asks for reasoning where there is any; a prefix is behind it.
bool Thinks(const Api& api, const ApiRequest& request) {
  if (!request.chat || request.prefix) return false;
  if (api.encoding == model::ChatEncoding::kR1) return true;
  const std::string& effort = request.reasoning_effort;
  const bool asked = !effort.empty() && effort != "none" && effort != "minimal";
  return request.thinking || (asked && model::HasThinking(api.encoding));
}

// Tools and the schema of the answer go to the first system message, or to one of their own.
std::vector<model::ChatMessage> WithTools(const Api& api, const ApiRequest& request) {
  std::vector<model::ChatMessage> messages = request.messages;
  const bool tools = !request.tools.empty() && request.tool_choice != ToolChoice::kNone;
  const bool schema =  // the other encodings have no place for it
      request.answer_schema &&
      (api.encoding == model::ChatEncoding::kV32 || api.encoding == model::ChatEncoding::kV4);
  if (!tools && !schema) return messages;
  const bool has_system = messages.front().role == "system" || messages.front().role == "developer";
  if (!has_system) messages.insert(messages.begin(), {.role = "system", .content = ""});
  if (tools) messages.front().tools = request.tools;
  if (schema) messages.front().response_format = *request.answer_schema;
  return messages;
}

// What the encodings know: "high" and "max".
std::string EffortOf(const ApiRequest& request) {
  const std::string& effort = request.reasoning_effort;
  if (effort == "xhigh") return "max";
  return effort == "high" || effort == "max" ? effort : "";
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
  return model::EncodeChat(*api.tokenizer, api.encoding, WithTools(api, request),
                           {.thinking = Thinks(api, request),
                            .continue_final = request.prefix,
                            .reasoning_effort = EffortOf(request),
                            .texts = &api.chat_texts});
}

// Fill in the middle, in DeepSeek's order: beginning, gap, end.
absl::StatusOr<std::vector<uint32_t>> EncodeGap(const Api& api, const ApiRequest& request) {
  std::vector<uint32_t> ids;
  if (const auto bos = api.config.bos_token_id) ids.push_back(*bos);
  const std::string_view before = request.prompt;
  const std::string_view after = *request.suffix;
  for (const auto& [token, text] :
       {std::pair(model::special::kFimBegin, before), std::pair(model::special::kFimHole, after),
        std::pair(model::special::kFimEnd, std::string_view())}) {
    const auto id = api.tokenizer->IdOf(token);
    if (!id) {
      return Error(
          Reason::kUnsupported,
          absl::StrCat("model ", api.model, " cannot fill in the middle: its tokenizer has no ",
                       std::string(token)),
          {{"param", "suffix"}});
    }
    ids.push_back(*id);
    EM_ASSIGN_OR_RETURN(const std::vector<uint32_t> part, api.tokenizer->Encode(text, false));
    ids.insert(ids.end(), part.begin(), part.end());
  }
  return ids;
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
  if (request.suffix) return EncodeGap(api, request);
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

absl::Status SetSampling(const Api& api, const ApiRequest& request,
                         inference::v1::SamplingParams& out) {
  out.set_temperature(request.temperature);
  out.set_top_p(request.top_p);
  out.set_top_k(request.top_k);
  out.set_min_p(request.min_p);
  out.set_presence_penalty(request.presence_penalty);
  out.set_frequency_penalty(request.frequency_penalty);
  out.set_repetition_penalty(request.repetition_penalty);
  out.set_seed(request.seed ? *request.seed : base::EntropyU64());
  for (const auto& [id, bias] : request.logit_bias) {
    if (id >= api.config.vocab_size) {
      return Error(Reason::kInvalidArgument,
                   absl::StrCat("logit_bias: token id ", id, " is not in the vocabulary of ",
                                api.config.vocab_size),
                   {{"param", "logit_bias"}});
    }
    auto* added = out.add_logit_bias();
    added->set_token_id(id);
    added->set_bias(bias);
  }
  return absl::OkStatus();
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
  EM_RETURN_IF_ERROR(SetSampling(api, request, *out.mutable_sampling()));
  out.set_max_tokens(request.max_tokens);
  out.set_top_logprobs(request.top_logprobs);
  EM_ASSIGN_OR_RETURN(auto constraint,
                      ConstraintOf(api, request, ToDecodeOptions(api, request).end_of_reasoning));
  if (constraint) *out.mutable_constraint() = *std::move(constraint);
  return out;
}

DecodeOptions ToDecodeOptions(const Api& api, const ApiRequest& request) {
  DecodeOptions options{.stop = request.stop,
                        .encoding = api.encoding,
                        .tools = !request.tools.empty() && request.tool_choice != ToolChoice::kNone,
                        .parallel_calls = request.parallel_calls,
                        .logprobs = request.logprobs};
  if (Thinks(api, request)) {
    options.end_of_reasoning = api.tokenizer->IdOf(model::special::kEndThink);
  }
  return options;
}

}  // namespace expertmesh::gateway
