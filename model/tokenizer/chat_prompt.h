// A prompt under construction: chat tokens, and the texts between them. Neighbouring texts are one
// text, as in the string that a published encoder would render.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::model {

/// One owner. The tokenizer outlives it.
class ChatPrompt {
 public:
  explicit ChatPrompt(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// A chat token by name; text, if the tokenizer has no such token.
  void Token(std::string_view name);
  /// What a user, a tool or a model wrote: never becomes a chat token, whatever it spells.
  void Text(std::string_view text);
  /// What the encoding itself writes: names of chat tokens in it become those tokens.
  void Own(std::string_view text);

  /// The ids. kInvalidArgument from Tokenizer::Encode.
  absl::StatusOr<std::vector<uint32_t>> Encode() const;

 private:
  struct Part {
    std::optional<uint32_t> token;
    std::string text;
  };

  const Tokenizer* tokenizer_;
  std::vector<Part> parts_;
};

}  // namespace expertmesh::model
