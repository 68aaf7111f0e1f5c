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
      reasoning_(options_.end_of_reasoning.has_value()) {
  head_.thinking = reasoning_;
}

void Answer::SetPrompt(uint32_t prompt_tokens, uint32_t cached_tokens) {
  usage_.prompt_tokens = prompt_tokens;
  usage_.cached_tokens = std::min(cached_tokens, prompt_tokens);
}

std::string Answer::Begin() const { return options_.stream ? Sse(RoleChunk(head_)) : ""; }

AnswerParts Answer::Take(std::string text) {
  if (reasoning_) return {.reasoning = std::move(text)};
  return {.content = stops_.Push(text)};
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
  if (reasoning_) ++usage_.reasoning_tokens;
  if (reasoning_ && id == options_.end_of_reasoning) {
    AnswerParts rest = Take(detokenizer_.Flush());
    reasoning_ = false;
    return Emit(std::move(rest));
  }
  return Emit(Take(detokenizer_.Push(id)));
}

std::string Answer::Finish(std::string_view reason) {
  AnswerParts rest;
  if (!stopped()) rest = Take(detokenizer_.Flush());
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
