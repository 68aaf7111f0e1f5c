// Turns generated ids into text piece by piece, never splitting a UTF-8 character.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "model/tokenizer/tokenizer.h"

namespace expertmesh::model {

/// One per generated text; not thread-safe. The tokenizer outlives it. All pushes and the flush,
/// joined, are Tokenizer::Decode of all ids.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  /// The text that this id completes; at most 3 bytes of an open character stay inside. Bytes that
  /// can no longer become a character come out as U+FFFD.
  std::string Push(uint32_t id);
  /// U+FFFD for an open character, nothing otherwise. Ready for a new text after it.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string open_;  // the first bytes of a character
};

}  // namespace expertmesh::model
