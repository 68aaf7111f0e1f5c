// Response bodies and SSE events as OpenAI clients expect them. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "gateway/core/api_error.h"

namespace expertmesh::gateway {

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t cached_tokens = 0;     // of the prompt
  uint32_t reasoning_tokens = 0;  // of the completion
};

/// What is the same in every body of one answer.
struct AnswerHead {
  bool chat = true;
  std::string id = {};           // "chatcmpl-…" or "cmpl-…"
  int64_t created = 0;           // Unix seconds
  std::string model = {};        // served id
  std::string fingerprint = {};  // system_fingerprint
  bool thinking = false;         // chat: reasoning fields are there
  bool include_usage = false;    // chunks: "usage": null, and a last one with it
};

/// Text of an answer, or the piece of it that came with one token.
struct AnswerParts {
  std::string reasoning = {};
  std::string content = {};
  bool empty() const { return reasoning.empty() && content.empty(); }
};

std::string WholeAnswer(const AnswerHead& head, const AnswerParts& parts,
                        std::string_view finish_reason, const Usage& usage);

/// First chat chunk: the role. Completions have none: "".
std::string RoleChunk(const AnswerHead& head);
std::string TextChunk(const AnswerHead& head, const AnswerParts& parts);
std::string FinishChunk(const AnswerHead& head, std::string_view finish_reason);
/// The extra chunk of stream_options.include_usage: empty choices.
std::string UsageChunk(const AnswerHead& head, const Usage& usage);

std::string ErrorBody(const ApiError& error);
std::string ModelBody(const std::string& id, int64_t created);
std::string ModelsBody(const std::string& id, int64_t created);

inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";
/// "data: …\n\n"; nothing for an empty text. JSON bodies have no line breaks.
std::string Sse(const std::string& json);

}  // namespace expertmesh::gateway
