#include "model/grammar/token_trie.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "model/tokenizer/utf8.h"

namespace expertmesh::model {
namespace {

// Characters of a text that a JSON string takes as it is; 0 if it does not.
uint32_t PlainCharacters(std::string_view text) {
  uint32_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) {
    const Utf8Char c = DecodeUtf8(text.substr(at));
    if (!c.valid || c.value < 0x20 || c.value == '"' || c.value == '\\') return 0;
    at += c.length;
  }
  return count;
}

Trie BuildTrie(const std::vector<std::string>& bytes, std::vector<uint32_t> ids) {
  std::sort(ids.begin(), ids.end(), [&](uint32_t a, uint32_t b) {
    return bytes[a] != bytes[b] ? bytes[a] < bytes[b] : a < b;
  });
  Trie trie;
  std::vector<uint32_t> path;  // nodes of the text so far
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      trie.nodes[path.back()].next = static_cast<uint32_t>(trie.nodes.size());
    }
  };
  std::string_view before;
  for (const uint32_t id : ids) {
    const std::string& text = bytes[id];
    const auto common = static_cast<size_t>(
        std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first - text.begin());
    close(common);
    for (size_t i = common; i < text.size(); ++i) {
      path.push_back(static_cast<uint32_t>(trie.nodes.size()));
      TrieNode node;
      node.byte = static_cast<uint8_t>(text[i]);
      node.depth = static_cast<uint16_t>(i + 1);
      node.tokens = static_cast<uint32_t>(trie.ids.size());
      trie.nodes.push_back(node);
    }
    trie.ids.push_back(id);
    ++trie.nodes[path.back()].token_count;
    before = text;
  }
  close(0);
  return trie;
}

}  // namespace

size_t TokenSet::Count() const {
  return std::accumulate(words_.begin(), words_.end(), size_t{0}, [](size_t sum, uint64_t word) {
    return sum + static_cast<size_t>(std::popcount(word));
  });
}

TokenTrie::TokenTrie(const Tokenizer& tokenizer, size_t vocab_rows)
    : bytes_(vocab_rows), all_(vocab_rows), plain_(kPlainMax + 1, TokenSet(vocab_rows)) {
  constexpr size_t kBytesMax = UINT16_MAX;
  std::vector<uint32_t> ids;
  std::vector<uint32_t> others;
  const auto end = static_cast<uint32_t>(std::min(vocab_rows, tokenizer.vocab_size()));
  const std::vector<bool> placeholders = tokenizer.PlaceholderMask(vocab_rows);
  for (uint32_t id = 0; id < end; ++id) {
    const std::string_view text = tokenizer.TokenBytes(id);
    if (text.empty() || text.size() > kBytesMax || tokenizer.IsAdded(id) || placeholders[id]) {
      continue;
    }
    bytes_[id] = std::string(text);
    ids.push_back(id);
    all_.Add(id);
    const uint32_t characters = PlainCharacters(text);
    if (characters == 0 || characters > kPlainMax) {
      others.push_back(id);
    } else {
      plain_[characters].Add(id);
    }
  }
  for (size_t k = 1; k < plain_.size(); ++k) plain_[k].AddAll(plain_[k - 1]);
  trie_ = BuildTrie(bytes_, std::move(ids));
  other_ = BuildTrie(bytes_, std::move(others));
}

}  // namespace expertmesh::model
