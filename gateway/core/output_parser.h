// A model's answer on its way to the client: text in, reasoning, content and tool calls out
// (docs/formats.md §8.7). Pure; never aborts on any bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/chat_encoding.h"

namespace expertmesh::gateway {

/// A piece of the answer. A call comes as a whole, when it is complete: what is cut off is content.
struct OutputDelta {
  enum class Kind { kReasoning, kContent, kToolCall };
  Kind kind = Kind::kContent;
  std::string text = {};  // of a call: its arguments, JSON unless the model wrote something else
  std::string name = {};  // of a call: the function
  bool operator==(const OutputDelta&) const = default;
};

/// One per answer, one owner. Markers may be split anywhere between pushes, inside characters too;
/// what could still become one is held back (at most the longest marker, or one open call).
class OutputParser {
 public:
  /// `reasoning`: the prompt ended with <think>. `tools`: calls are looked for, in the form of the
  /// encoding; without, their markers are content.
  OutputParser(model::ChatEncoding encoding, bool reasoning, bool tools);

  /// What this text completes. Joined, deltas do not depend on how the text was cut.
  std::vector<OutputDelta> Push(std::string_view text);
  /// The token </think>, for tokenizers that do not show it as text. Nothing after the first.
  std::vector<OutputDelta> EndReasoning();
  /// The end: what was held back. An open block comes out as content, as it was written.
  std::vector<OutputDelta> Finish();

  bool reasoning() const { return state_ == State::kReasoning; }
  /// Complete calls so far. The finish reason is tool_calls iff this is not 0.
  size_t calls() const { return calls_; }

 private:
  enum class State { kReasoning, kContent, kBlock, kBroken };
  struct Form {
    std::string block_begin;
    std::string block_end;
    std::string call_begin;
    std::string call_end;
  };

  static Form FormOf(model::ChatEncoding encoding);
  std::optional<OutputDelta> ParseCall(std::string_view call) const;
  std::optional<OutputDelta> ParseDsmlCall(std::string_view call) const;

  bool Step(std::vector<OutputDelta>& deltas);
  bool StepText(std::vector<OutputDelta>& deltas);
  bool StepBlock(std::vector<OutputDelta>& deltas);
  void Emit(size_t bytes, std::vector<OutputDelta>& deltas);
  void Break();
  size_t HeldBack() const;

  const model::ChatEncoding encoding_;
  const Form form_;
  std::vector<std::string> markers_;  // of reasoning and content
  State state_;
  std::string buffer_;   // what came and is not out yet
  std::string opening_;  // the begin of a block none of whose calls is out yet, as it was written
  size_t calls_ = 0;
};

}  // namespace expertmesh::gateway
