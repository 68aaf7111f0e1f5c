#include "model/tokenizer/added_tokens.h"

#include "model/tokenizer/utf8.h"

namespace expertmesh::model {
namespace {

uint64_t EdgeKey(uint32_t node, char byte) {
  return (uint64_t{node} << 8) | static_cast<uint8_t>(byte);
}

// Bytes of white space at the end of the text.
size_t SpaceAtEnd(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    size_t start = begin - 1;
    while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xc0) == 0x80) --start;
    if (!IsWhitespace(DecodeUtf8(text.substr(start)).value)) break;
    begin = start;
  }
  return text.size() - begin;
}

// Bytes of white space at its start.
size_t SpaceAtStart(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    const Utf8Char character = DecodeUtf8(text.substr(end));
    if (!IsWhitespace(character.value)) break;
    end += character.length;
  }
  return end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens, bool normalized) {
  uint32_t nodes = 1;
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized) continue;
    begins_[static_cast<uint8_t>(token.content[0])] = true;
    uint32_t node = 0;
    for (const char byte : token.content) {
      const auto [it, is_new] = edges_.emplace(EdgeKey(node, byte), nodes);
      if (is_new) ++nodes;
      node = it->second;
    }
    ends_.insert_or_assign(node, tokens_.size());
    tokens_.push_back(token);
  }
}

const AddedToken* AddedTokenMatcher::LongestAt(std::string_view text, size_t position) const {
  if (!begins_[static_cast<uint8_t>(text[position])]) return nullptr;
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (; position < text.size(); ++position) {
    const auto edge = edges_.find(EdgeKey(node, text[position]));
    if (edge == edges_.end()) break;
    node = edge->second;
    const auto end = ends_.find(node);
    if (end != ends_.end()) longest = &tokens_[end->second];
  }
  return longest;
}

void AddedTokenMatcher::Split(std::string_view text, std::vector<TextSection>& sections) const {
  size_t done = 0;  // everything before is in a section
  size_t position = 0;
  while (position < text.size()) {
    const AddedToken* token = LongestAt(text, position);
    if (token == nullptr) {
      ++position;
      continue;
    }
    size_t begin = position;
    size_t end = position + token->content.size();
    if (token->lstrip) begin -= SpaceAtEnd(text.substr(done, begin - done));
    if (token->rstrip) end += SpaceAtStart(text.substr(end));
    if (begin > done) sections.push_back({text.substr(done, begin - done), std::nullopt});
    sections.push_back({text.substr(begin, end - begin), token->id});
    done = position = end;
  }
  if (done < text.size()) sections.push_back({text.substr(done), std::nullopt});
}

}  // namespace expertmesh::model
