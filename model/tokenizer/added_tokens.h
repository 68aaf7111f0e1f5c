// Finds added tokens in text: leftmost first, of those the longest.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "model/tokenizer/tokenizer_spec.h"

namespace expertmesh::model {

/// A part of the text: an added token, or text between them.
struct TextSection {
  std::string_view text;
  std::optional<uint32_t> id;
};

/// Immutable; any thread.
class AddedTokenMatcher {
 public:
  /// Looks for the tokens whose `normalized` flag is as given (they are looked for in two rounds).
  AddedTokenMatcher(const std::vector<AddedToken>& tokens, bool normalized);

  /// Appends the sections of `text`, which is valid UTF-8.
  void Split(std::string_view text, std::vector<TextSection>& sections) const;

 private:
  const AddedToken* LongestAt(std::string_view text, size_t position) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};                 // a token begins with this byte
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // (trie node << 8 | byte) → node; 0 is the root
  absl::flat_hash_map<uint32_t, size_t> ends_;     // node → index of the token that ends there
};

}  // namespace expertmesh::model
