#include "services/example/core/word_count.h"

#include "services/base/status.h"

namespace expertmesh::example {

absl::StatusOr<uint32_t> CountWords(std::string_view text) {
  if (text.empty()) {
    return base::Error(base::Reason::kInvalidArgument, "text is empty; send at least one word");
  }
  uint32_t words = 0;
  bool in_word = false;
  for (const char c : text) {
    words += c != ' ' && !in_word;
    in_word = c != ' ';
  }
  return words;
}

}  // namespace expertmesh::example
