#include "gateway/core/answer.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {
namespace {

template <class T>
void Append(std::vector<T> from, std::vector<T>& to) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

}  // namespace

Answer::Answer(std::unique_ptr<AnswerFormat> format, const model::Tokenizer& tokenizer,
               const Options& options)
    : format_(std::move(format)), stream_(options.stream), call_prefix_(options.call_prefix) {
  for (uint32_t i = 0; i < options.choices; ++i) {
    choices_.push_back(std::make_unique<Choice>(ChoiceDecoder(tokenizer, options.decode)));
  }
}

void Answer::SetPrompt(uint32_t prompt_tokens, uint32_t cached_tokens) {
  usage_.prompt_tokens = prompt_tokens;
  usage_.cached_tokens = std::min(cached_tokens, prompt_tokens);
}

std::string Answer::Begin() {
  if (!stream_ || std::exchange(begun_, true)) return "";
  return format_->Begin(usage_);
}

std::string Answer::Emit(uint32_t choice, ChoiceParts parts) {
  if (parts.empty()) return "";
  Choice& to = *choices_[choice];
  const size_t first_call = to.calls;
  for (ToolCall& call : parts.calls) {
    call.id = absl::StrCat(call_prefix_, "_", choice, "_", to.calls++);
  }
  if (stream_) {
    const std::string begin = Begin();
    return begin + format_->Delta(choice, parts, first_call);
  }
  to.whole.parts.reasoning += parts.reasoning;
  to.whole.parts.content += parts.content;
  Append(std::move(parts.calls), to.whole.parts.calls);
  Append(std::move(parts.tokens), to.whole.parts.tokens);
  return "";
}

std::string Answer::OnToken(uint32_t choice, const AnswerToken& token) {
  ChoiceDecoder& decoder = choices_[choice]->decoder;
  if (decoder.ended()) return "";
  ++usage_.completion_tokens;
  if (decoder.reasoning()) ++usage_.reasoning_tokens;
  return Emit(choice, decoder.Push(token));
}

std::string Answer::EndChoice(uint32_t choice, bool length) {
  Choice& ended = *choices_[choice];
  const bool by_itself = ended.decoder.ended();
  std::string out = Begin();
  out += Emit(choice, ended.decoder.Finish());
  ended.whole.ending = ended.decoder.ending(length && !by_itself);
  ended.whole.stop = ended.decoder.stop();
  if (stream_) out += format_->EndChoice(choice, ended.whole, usage_);
  return out;
}

std::string Answer::Finish() {
  if (stream_) return format_->End(usage_);
  std::vector<WholeChoice> whole;
  for (const auto& choice : choices_) whole.push_back(std::move(choice->whole));
  return format_->Whole(whole, usage_);
}

std::string_view Answer::finish_reason() const {
  switch (choices_.front()->whole.ending) {
    case Ending::kLength:
      return "length";
    case Ending::kToolCalls:
      return "tool_calls";
    case Ending::kStop:
    case Ending::kStopString:
      break;
  }
  return "stop";
}

}  // namespace expertmesh::gateway
