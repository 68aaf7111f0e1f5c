#include "gateway/core/answer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {

Answer::Answer(AnswerHead head, const model::Tokenizer& tokenizer, AnswerOptions options)
    : head_(std::move(head)),
      options_(std::move(options)),
      detokenizer_(tokenizer, true),
      stops_(options_.stop),
      parser_(model::ChatEncoding::kNone, options_.end_of_reasoning.has_value(), false) {
  head_.thinking = parser_.reasoning();
}

void Answer::SetPrompt(uint32_t prompt_tokens, uint32_t cached_tokens) {
  usage_.prompt_tokens = prompt_tokens;
  usage_.cached_tokens = std::min(cached_tokens, prompt_tokens);
}

std::string Answer::Begin() const { return options_.stream ? Sse(RoleChunk(head_)) : ""; }

AnswerParts Answer::Take(std::vector<OutputDelta> deltas) {
  AnswerParts parts;
  for (const OutputDelta& delta : deltas) {
    if (delta.kind == OutputDelta::Kind::kReasoning) {
      parts.reasoning += delta.text;
    } else {
      parts.content += stops_.Push(delta.text);
    }
  }
  return parts;
}

std::string Answer::Emit(AnswerParts parts) {
  if (options_.stream) return parts.empty() ? "" : Sse(TextChunk(head_, parts));
  whole_.reasoning += parts.reasoning;
  whole_.content += parts.content;
  return "";
}

std::string Answer::OnToken(uint32_t id) {
  if (stopped()) return "";
  ++usage_.completion_tokens;
  const bool reasoning = parser_.reasoning();
  if (reasoning) ++usage_.reasoning_tokens;
  if (!reasoning || id != options_.end_of_reasoning) {
    return Emit(Take(parser_.Push(detokenizer_.Push(id))));
  }
  std::vector<OutputDelta> deltas = parser_.Push(detokenizer_.Flush());
  std::vector<OutputDelta> rest = parser_.EndReasoning();
  deltas.insert(deltas.end(), rest.begin(), rest.end());
  return Emit(Take(std::move(deltas)));
}

std::string Answer::Finish(std::string_view reason) {
  AnswerParts rest;
  if (!stopped()) {
    std::vector<OutputDelta> deltas = parser_.Push(detokenizer_.Flush());
    std::vector<OutputDelta> held = parser_.Finish();
    deltas.insert(deltas.end(), held.begin(), held.end());
    rest = Take(std::move(deltas));
  }
  rest.content += stops_.Flush();
  std::string out = Emit(std::move(rest));
  if (stopped()) reason = "stop";
  if (!options_.stream) return WholeAnswer(head_, whole_, reason, usage_);
  out += Sse(FinishChunk(head_, reason));
  if (head_.include_usage) out += Sse(UsageChunk(head_, usage_));
  out += kSseDone;
  return out;
}

std::string Answer::Fail(const ApiError& error) const { return Sse(ErrorBody(error)); }

}  // namespace expertmesh::gateway
