// What an answer is made of, and how a dialect of the API writes it (OpenAI chat and completions,
// Responses, Anthropic messages). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gateway/core/api_error.h"

namespace expertmesh::gateway {

/// Tokens of an answer, all choices together; the prompt counts once.
struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t cached_tokens = 0;     // of the prompt
  uint32_t reasoning_tokens = 0;  // of the completion
};

/// A token as text, which may be part of a character, and ln of its probability.
struct TokenText {
  std::string text = {};   // UTF-8, U+FFFD for bytes that are none
  std::string bytes = {};  // as they are
  float logprob = 0;
};
struct ChosenToken {
  TokenText token = {};
  std::vector<TokenText> likeliest = {};
};

struct ToolCall {
  std::string id = {};
  std::string name = {};
  std::string arguments = {};  // JSON, unless the model wrote something else
};

/// Text of a choice, or the piece of it that came with one token.
struct ChoiceParts {
  std::string reasoning = {};
  std::string content = {};
  std::vector<ToolCall> calls = {};
  std::vector<ChosenToken> tokens = {};  // of the content; only if asked for
  bool empty() const { return reasoning.empty() && content.empty() && calls.empty(); }
};

enum class Ending { kStop, kStopString, kLength, kToolCalls };

/// A choice that is complete.
struct WholeChoice {
  ChoiceParts parts = {};
  Ending ending = Ending::kStop;
  std::string stop = {};  // kStopString: which
};

/// One dialect, one answer. The strings are bytes to send: SSE events, or one JSON body. Begin
/// comes first, Delta and EndChoice in any order of choices, End last.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual std::string Begin(const Usage& usage) = 0;
  /// `parts` is not empty. `first_call`: calls of this choice that came before.
  virtual std::string Delta(uint32_t choice, const ChoiceParts& parts, size_t first_call) = 0;
  virtual std::string EndChoice(uint32_t choice, const WholeChoice& end, const Usage& usage) = 0;
  virtual std::string End(const Usage& usage) = 0;
  /// A stream that broke: an error event, and nothing that looks like an end.
  virtual std::string Fail(const ApiError& error) = 0;
  /// The answer in one body.
  virtual std::string Whole(const std::vector<WholeChoice>& choices, const Usage& usage) = 0;
};

}  // namespace expertmesh::gateway
