// Tokens of one choice → text, reasoning, calls. Special tokens are left out, characters are never
// split, stop strings and all behind them never leave. Pure, one owner.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gateway/core/answer_format.h"
#include "gateway/core/output_parser.h"
#include "gateway/core/stop_matcher.h"
#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::gateway {

struct DecodeOptions {
  std::vector<std::string> stop = {};
  /// The answer begins with reasoning up to this token, or its name as text; stop strings count
  /// behind it.
  std::optional<uint32_t> end_of_reasoning = {};
  model::ChatEncoding encoding = model::ChatEncoding::kNone;
  bool tools = false;          // calls are looked for
  bool parallel_calls = true;  // false: the answer ends with its first call
  bool logprobs = false;       // ChoiceParts::tokens
};

/// A token as the worker sends it.
struct AnswerToken {
  uint32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<uint32_t, float>> likeliest = {};
};

class ChoiceDecoder {
 public:
  /// `tokenizer` outlives it.
  ChoiceDecoder(const model::Tokenizer& tokenizer, const DecodeOptions& options);

  /// What the token completes; nothing once `ended`. Calls have no id yet.
  ChoiceParts Push(const AnswerToken& token);
  /// What was held back.
  ChoiceParts Finish();

  /// A stop string or the only call came: no token counts any more.
  bool ended() const { return stops_.stopped() || call_ended_; }
  /// How it ended, for a worker that stopped by itself (or at its limit, `length`).
  Ending ending(bool length) const;
  bool reasoning() const { return parser_.reasoning(); }
  /// Which stop string came.
  const std::string& stop() const { return stops_.match(); }

 private:
  ChoiceParts Take(std::vector<OutputDelta> deltas);
  TokenText TextOf(uint32_t id, float logprob) const;

  const model::Tokenizer& tokenizer_;
  const DecodeOptions options_;
  model::Detokenizer detokenizer_;
  StopMatcher stops_;
  OutputParser parser_;
  std::vector<ChosenToken> held_tokens_;  // whose text is not out yet
  size_t calls_ = 0;
  bool call_ended_ = false;
};

}  // namespace expertmesh::gateway
