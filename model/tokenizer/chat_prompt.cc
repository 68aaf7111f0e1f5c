#include "model/tokenizer/chat_prompt.h"

#include <algorithm>

#include "model/tokenizer/special_tokens.h"
#include "services/base/status.h"

namespace expertmesh::model {

void ChatPrompt::Token(std::string_view name) {
  const std::optional<uint32_t> id = tokenizer_->IdOf(name);
  if (id.has_value()) {
    parts_.push_back({id, {}});
  } else {
    Text(name);
  }
}

void ChatPrompt::Text(std::string_view text) {
  if (text.empty()) return;
  if (parts_.empty() || parts_.back().token.has_value()) parts_.emplace_back();
  parts_.back().text += text;
}

void ChatPrompt::Own(std::string_view text) {
  while (!text.empty()) {
    size_t first = std::string_view::npos;
    std::string_view found;
    for (const std::string_view name : special::kChatTokens) {
      const size_t at = text.find(name);
      if (at < first) {
        first = at;
        found = name;
      }
    }
    Text(text.substr(0, first));
    if (found.empty()) return;
    Token(found);
    text.remove_prefix(first + found.size());
  }
}

absl::StatusOr<std::vector<uint32_t>> ChatPrompt::Encode() const {
  std::vector<uint32_t> ids;
  for (const Part& part : parts_) {
    if (part.token.has_value()) {
      ids.push_back(*part.token);
      continue;
    }
    absl::StatusOr<std::vector<uint32_t>> text = tokenizer_->Encode(part.text, false);
    if (!text.ok()) return base::Annotate(text.status(), "messages: ");
    ids.insert(ids.end(), text->begin(), text->end());
  }
  return ids;
}

}  // namespace expertmesh::model
