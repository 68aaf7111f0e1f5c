// One answer on its way to the client: tokens of its choices in, bytes in a dialect out. Pure.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/core/answer_format.h"
#include "gateway/core/choice_decoder.h"

namespace expertmesh::gateway {

/// One owner. The strings that the methods return are what goes out now: SSE events of a stream;
/// without `stream` nothing before Finish, which returns the body.
class Answer {
 public:
  struct Options {
    bool stream = false;
    uint32_t choices = 1;
    std::string call_prefix = "call";  // ids of calls: prefix, choice and number
    DecodeOptions decode = {};
  };
  /// `tokenizer` outlives the answer.
  Answer(std::unique_ptr<AnswerFormat> format, const model::Tokenizer& tokenizer,
         const Options& options);

  /// Facts of the first step; no event.
  void SetPrompt(uint32_t prompt_tokens, uint32_t cached_tokens);

  /// The first events of a stream, if nothing has gone out yet: they also come by themselves before
  /// the first token.
  std::string Begin();
  std::string OnToken(uint32_t choice, const AnswerToken& token);
  /// The choice ended by what it says (a stop string): stop its worker and call EndChoice.
  bool ended(uint32_t choice) const { return choices_[choice]->decoder.ended(); }
  /// The choice is complete; `length`: the worker stopped at a limit.
  std::string EndChoice(uint32_t choice, bool length);
  /// The end, when every choice has ended.
  std::string Finish();
  /// The end of a stream that broke: an error event and no end of the answer.
  std::string Fail(const ApiError& error) { return format_->Fail(error); }

  const Usage& usage() const { return usage_; }
  uint32_t choices() const { return static_cast<uint32_t>(choices_.size()); }
  /// How the first choice ended, for the log: "stop", "length" or "tool_calls".
  std::string_view finish_reason() const;

 private:
  struct Choice {
    explicit Choice(ChoiceDecoder d) : decoder(std::move(d)) {}
    ChoiceDecoder decoder;
    WholeChoice whole = {};  // of a stream: without its texts
    size_t calls = 0;
  };
  std::string Emit(uint32_t choice, ChoiceParts parts);

  const std::unique_ptr<AnswerFormat> format_;
  const bool stream_;
  bool begun_ = false;
  const std::string call_prefix_;
  std::vector<std::unique_ptr<Choice>> choices_;
  Usage usage_;
};

}  // namespace expertmesh::gateway
