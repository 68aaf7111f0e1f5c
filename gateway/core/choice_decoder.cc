#include "gateway/core/choice_decoder.h"

#include <utility>

namespace expertmesh::gateway {

ChoiceDecoder::ChoiceDecoder(const model::Tokenizer& tokenizer, const DecodeOptions& options)
    : tokenizer_(tokenizer),
      options_(options),
      detokenizer_(tokenizer, true),
      stops_(options.stop),
      parser_(options.encoding, options.end_of_reasoning.has_value(), options.tools) {}

ChoiceParts ChoiceDecoder::Take(std::vector<OutputDelta> deltas) {
  ChoiceParts parts;
  for (OutputDelta& delta : deltas) {
    if (ended()) break;
    switch (delta.kind) {
      case OutputDelta::Kind::kReasoning:
        parts.reasoning += delta.text;
        break;
      case OutputDelta::Kind::kContent:
        parts.content += stops_.Push(delta.text);
        break;
      case OutputDelta::Kind::kToolCall:
        parts.calls.push_back({"", std::move(delta.name), std::move(delta.text)});
        ++calls_;
        call_ended_ = !options_.parallel_calls;
        break;
    }
  }
  if (!parts.content.empty()) parts.tokens = std::exchange(held_tokens_, {});
  return parts;
}

TokenText ChoiceDecoder::TextOf(uint32_t id, float logprob) const {
  return {tokenizer_.Decode({&id, 1}, false), std::string(tokenizer_.TokenBytes(id)), logprob};
}

ChoiceParts ChoiceDecoder::Push(const AnswerToken& token) {
  if (ended()) return {};
  const bool in_reasoning = reasoning();
  if (options_.logprobs && !in_reasoning && !tokenizer_.IsSpecial(token.id)) {
    ChosenToken chosen{TextOf(token.id, token.logprob), {}};
    for (const auto& [id, logprob] : token.likeliest) {
      chosen.likeliest.push_back(TextOf(id, logprob));
    }
    held_tokens_.push_back(std::move(chosen));
  }
  if (!in_reasoning || token.id != options_.end_of_reasoning) {
    return Take(parser_.Push(detokenizer_.Push(token.id)));
  }
  std::vector<OutputDelta> deltas = parser_.Push(detokenizer_.Flush());
  std::vector<OutputDelta> rest = parser_.EndReasoning();
  deltas.insert(deltas.end(), rest.begin(), rest.end());
  return Take(std::move(deltas));
}

ChoiceParts ChoiceDecoder::Finish() {
  ChoiceParts rest;
  if (!ended()) {
    std::vector<OutputDelta> deltas = parser_.Push(detokenizer_.Flush());
    std::vector<OutputDelta> held = parser_.Finish();
    deltas.insert(deltas.end(), held.begin(), held.end());
    rest = Take(std::move(deltas));
  }
  rest.content += stops_.Flush();
  if (!rest.content.empty()) {
    rest.tokens.insert(rest.tokens.end(), held_tokens_.begin(), held_tokens_.end());
  }
  return rest;
}

Ending ChoiceDecoder::ending(bool length) const {
  if (calls_ > 0 && (!length || call_ended_)) return Ending::kToolCalls;
  if (stops_.stopped()) return Ending::kStopString;
  return length ? Ending::kLength : Ending::kStop;
}

}  // namespace expertmesh::gateway
