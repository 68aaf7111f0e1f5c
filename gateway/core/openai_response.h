// Response bodies and SSE events as OpenAI clients expect them. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/core/api_error.h"

namespace expertmesh::gateway {

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t cached_tokens = 0;
};

/// What is the same in every body of one answer.
struct AnswerHead {
  bool chat = true;
  std::string id;           // "chatcmpl-…" or "cmpl-…"
  int64_t created = 0;      // Unix seconds
  std::string model;
  std::string fingerprint;  // system_fingerprint
};

std::string WholeAnswer(const AnswerHead& head, std::string_view text, std::string_view finish_reason,
                        const Usage& usage);

/// First chat chunk: the role. Completions have none: "".
std::string RoleChunk(const AnswerHead& head, bool include_usage);
std::string TextChunk(const AnswerHead& head, std::string_view text, bool include_usage);
std::string FinishChunk(const AnswerHead& head, std::string_view finish_reason, bool include_usage);
/// The extra chunk of stream_options.include_usage: empty choices.
std::string UsageChunk(const AnswerHead& head, const Usage& usage);

std::string ErrorBody(const ApiError& error);
std::string ModelBody(const std::string& id, int64_t created);
std::string ModelsBody(const std::string& id, int64_t created);

/// "data: …\n\n"
std::string Sse(std::string_view json);

}  // namespace expertmesh::gateway
