// The ordinary tokens of a vocabulary as a trie of their bytes. Special and added tokens are not in
// it: what a grammar says in bytes is never said with them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/tokenizer/tokenizer.h"

namespace expertmesh::model {

/// One bit per row of the model's vocabulary.
class TokenSet {
 public:
  explicit TokenSet(size_t size = 0) : size_(size), words_((size + 63) / 64) {}
  void Add(uint32_t id) { words_[id / 64] |= uint64_t{1} << (id % 64); }
  bool Has(uint32_t id) const { return (words_[id / 64] >> (id % 64) & 1) != 0; }
  void AddAll(const TokenSet& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }
  /// Those of `from` that are not in `without`.
  void AddDifference(const TokenSet& from, const TokenSet& without) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= from.words_[i] & ~without.words_[i];
  }
  size_t size() const { return size_; }
  size_t Count() const;

 private:
  size_t size_;
  std::vector<uint64_t> words_;
};

/// Tokens in the order of a walk over their bytes.
struct TrieNode {
  uint8_t byte = 0;
  uint16_t depth = 0;   // bytes up to here, this one included
  uint32_t next = 0;    // the node behind everything that begins like this
  uint32_t tokens = 0;  // into Trie::ids: those that end here …
  uint32_t token_count = 0;
};
struct Trie {
  std::vector<TrieNode> nodes;
  std::vector<uint32_t> ids;
};

class TokenTrie {
 public:
  /// Longest plain token; longer ones are among the others.
  static constexpr uint32_t kPlainMax = 63;

  TokenTrie(const Tokenizer& tokenizer, size_t vocab_rows);

  size_t vocab_rows() const { return all_.size(); }
  const Trie& trie() const { return trie_; }
  /// Only tokens that are not plain: see PlainUpTo.
  const Trie& other() const { return other_; }
  const TokenSet& all() const { return all_; }
  /// Tokens of at most so many whole characters, none of them a quote, a backslash or a control:
  /// what a JSON string takes as it is.
  const TokenSet& PlainUpTo(uint32_t characters) const {
    return plain_[characters < kPlainMax ? characters : kPlainMax];
  }
  const std::string& bytes(uint32_t id) const { return bytes_[id]; }

 private:
  std::vector<std::string> bytes_;  // [vocab_rows]; empty: not ordinary
  Trie trie_;
  Trie other_;
  TokenSet all_;
  std::vector<TokenSet> plain_;  // [kPlainMax + 1]
};

}  // namespace expertmesh::model
