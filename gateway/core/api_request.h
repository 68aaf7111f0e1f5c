// Request bodies of /v1/chat/completions, /v1/completions, /v1/responses and
// /anthropic/v1/messages, checked field by field into one form. Every field is honoured, ignored by
// a written list, or refused by name (gateway/README.md). Pure; never aborts on any bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "gateway/core/api_error.h"
#include "model/tokenizer/chat_encoding.h"

namespace expertmesh::gateway {

enum class ToolChoice { kNone, kAuto, kRequired, kNamed };

/// A function that the answer may call.
struct ApiFunction {
  std::string name = {};
  std::string parameters = {};  // JSON schema
  bool strict = false;          // its arguments are held to the schema
  std::string field = {};       // where it stands in the body, for errors
  bool operator==(const ApiFunction&) const = default;
};

/// What a request that does not say otherwise samples with.
struct SamplingDefaults {
  float temperature = 1.0f;         // 0 to 2
  float top_p = 1.0f;               // above 0, at most 1
  uint32_t top_k = 0;               // 0 = all
  float min_p = 0.0f;               // 0 to 1
  float repetition_penalty = 1.0f;  // above 0
  bool operator==(const SamplingDefaults&) const = default;
};

struct ApiRequest : SamplingDefaults {
  bool chat = true;
  std::string model = {};
  std::vector<model::ChatMessage> messages = {};  // chat: at least one
  std::string prompt = {};                        // completions, if prompt_tokens is empty
  std::vector<uint32_t> prompt_tokens = {};       // completions, ready-made
  float presence_penalty = 0.0f;                  // -2 to 2
  float frequency_penalty = 0.0f;                 // -2 to 2
  std::vector<std::pair<uint32_t, float>> logit_bias = {};  // token → -100 to 100
  std::optional<uint64_t> seed = {};
  uint32_t choices = 1;  // n
  bool logprobs = false;
  uint32_t top_logprobs = 0;           // 0 to 20
  uint32_t max_tokens = 0;             // 0 = to the end of the context (completions: 16)
  std::vector<std::string> stop = {};  // none empty
  bool stream = false;
  bool include_usage = false;
  bool thinking = false;                    // chat: the answer starts with reasoning
  std::string reasoning_effort = {};        // chat; "" = not said
  std::vector<std::string> tools = {};      // chat: function schemas, JSON each
  std::vector<ApiFunction> functions = {};  // chat: the same, taken apart
  ToolChoice tool_choice = ToolChoice::kAuto;
  std::string tool_name = {};                     // kNamed: one of the functions
  std::optional<std::string> answer_schema = {};  // chat: the answer is JSON that satisfies it
  std::string answer_field = {};                  // where it stands in the body, for errors
  std::string answer_format = {};                 // the whole field as it came, JSON; "" = text
  bool parallel_calls = true;                     // false: at most one call
  bool prefix = false;                     // chat: the last message is the beginning of the answer
  std::optional<std::string> suffix = {};  // completions: the text behind the gap to fill
  ApiRequest() = default;
  explicit ApiRequest(const SamplingDefaults& defaults) : SamplingDefaults(defaults) {}
  bool operator==(const ApiRequest&) const = default;
};

using ParsedRequest = std::variant<ApiRequest, ApiError>;

ParsedRequest ParseChatRequest(std::string_view body, const SamplingDefaults& defaults = {});
ParsedRequest ParseCompletionRequest(std::string_view body, const SamplingDefaults& defaults = {});
ParsedRequest ParseResponsesRequest(std::string_view body, const SamplingDefaults& defaults = {});
/// `counting`: for count_tokens, which needs no max_tokens.
ParsedRequest ParseMessagesRequest(std::string_view body, bool counting = false,
                                   const SamplingDefaults& defaults = {});

}  // namespace expertmesh::gateway
