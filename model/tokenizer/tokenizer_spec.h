// tokenizer.json (Hugging Face `tokenizers` schema) as plain data: what byte-level BPE needs of it.
// Parsing checks form, types and sizes; whether the parts fit together is checked by their users.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace expertmesh::model {

inline constexpr uint32_t kTokenIdMax = (1u << 20) - 1;
inline constexpr size_t kTokenBytesMax = 64 * 1024;

struct TokenEntry {
  std::string content;  // in the spelling of the file (byte_map.h)
  uint32_t id = 0;
};

/// A token that is cut out of the text before anything else. Never spelled by byte_map.h.
struct AddedToken {
  std::string content;
  uint32_t id = 0;
  bool lstrip = false;      // takes white space before it along
  bool rstrip = false;      // takes white space behind it along
  bool normalized = false;  // looked for after the tokens that are not
  bool special = false;     // decoding can leave it out
};

/// What becomes of a match of a split's expression; names of the file.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// One step of the pre-tokenizer, applied to every piece that the step before it left.
struct SplitStep {
  std::string pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what does not match is the match
};

struct TokenizerSpec {
  std::vector<TokenEntry> vocab;  // any order
  std::vector<AddedToken> added_tokens;
  std::vector<std::pair<std::string, std::string>> merges;  // first = merged first
  bool ignore_merges = false;  // a piece that is a token is taken whole
  std::vector<SplitStep> splits;
};

/// kBadTokenizer, one line naming the key. Never aborts on any bytes.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view text);

/// A kBadTokenizer status.
absl::Status BadTokenizer(std::string_view message);
/// A token for an error message: quoted, escaped, cut to one short line.
std::string ShowToken(std::string_view content);

}  // namespace expertmesh::model
