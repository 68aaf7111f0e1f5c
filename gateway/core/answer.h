// One answer on its way to the client: tokens in, SSE events or one body out. Special tokens are
// left out, characters are never split, stop strings and all behind them never leave. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/core/openai_response.h"
#include "gateway/core/output_parser.h"
#include "gateway/core/stop_matcher.h"
#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::gateway {

struct AnswerOptions {
  bool stream = false;
  std::vector<std::string> stop = {};
  /// The answer begins with reasoning up to this token, or its name as text; stop strings count
  /// behind it.
  std::optional<uint32_t> end_of_reasoning = {};
};

/// One owner. The strings that the methods return are what goes out now: SSE events of a stream;
/// without `stream` nothing before Finish, which returns the body.
class Answer {
 public:
  /// `tokenizer` outlives the answer. head.thinking is set from the options.
  Answer(AnswerHead head, const model::Tokenizer& tokenizer, AnswerOptions options);

  /// Facts of admission; no event.
  void SetPrompt(uint32_t prompt_tokens, uint32_t cached_tokens);

  /// The first event of a stream: the role.
  std::string Begin() const;
  std::string OnToken(uint32_t id);
  /// A stop string came: no token counts any more, call Finish.
  bool stopped() const { return stops_.stopped(); }
  /// The end. `reason` is "stop" or "length"; a stop string makes it "stop".
  std::string Finish(std::string_view reason);
  /// The end of a stream that broke: an error event and no [DONE].
  std::string Fail(const ApiError& error) const;

  const Usage& usage() const { return usage_; }

 private:
  AnswerParts Take(std::vector<OutputDelta> deltas);
  std::string Emit(AnswerParts parts);

  AnswerHead head_;
  AnswerOptions options_;
  model::Detokenizer detokenizer_;
  StopMatcher stops_;
  OutputParser parser_;  // for reasoning: requests offer no tools yet, so no calls are looked for
  AnswerParts whole_;    // without stream: what came so far
  Usage usage_;
};

}  // namespace expertmesh::gateway
