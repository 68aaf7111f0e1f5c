// Response bodies and SSE events of /v1/chat/completions and /v1/completions as OpenAI's clients
// expect them, and the bodies of models and errors. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/core/answer_format.h"

namespace expertmesh::gateway {

/// What is the same in every body of one answer.
struct AnswerHead {
  bool chat = true;
  std::string id = {};           // "chatcmpl-…" or "cmpl-…"
  int64_t created = 0;           // Unix seconds
  std::string model = {};        // served id
  std::string fingerprint = {};  // system_fingerprint
  bool thinking = false;         // chat: reasoning fields are there
  bool include_usage = false;    // chunks: "usage": null, and a last one with it
  bool logprobs = false;
  uint32_t choices = 1;
};

class OpenAiFormat final : public AnswerFormat {
 public:
  explicit OpenAiFormat(AnswerHead head) : head_(std::move(head)), text_bytes_(head_.choices) {}

  std::string Begin(const Usage& usage) override;
  std::string Delta(uint32_t choice, const ChoiceParts& parts, size_t first_call) override;
  std::string EndChoice(uint32_t choice, const WholeChoice& end, const Usage& usage) override;
  std::string End(const Usage& usage) override;
  std::string Fail(const ApiError& error) override;
  std::string Whole(const std::vector<WholeChoice>& choices, const Usage& usage) override;

 private:
  boost::json::object Body(bool chunk) const;
  boost::json::value Logprobs(uint32_t choice, const ChoiceParts& parts);
  std::string Chunk(uint32_t choice, boost::json::object delta, const std::string& text,
                    boost::json::value logprobs, boost::json::value finish_reason) const;

  const AnswerHead head_;
  std::vector<size_t> text_bytes_;  // [choices] sent so far, for text_offset
};

/// "stop", "length" or "tool_calls".
std::string_view FinishReason(Ending ending);

std::string ErrorBody(const ApiError& error);
std::string ModelBody(const std::string& id, int64_t created);
std::string ModelsBody(const std::string& id, int64_t created);

inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";
/// "data: …\n\n"; nothing for an empty text. JSON bodies have no line breaks.
std::string Sse(const std::string& json);

}  // namespace expertmesh::gateway
