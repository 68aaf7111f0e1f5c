// Which pages of lane state hold the state of which tokens, so that a prompt that begins like an
// earlier one starts behind the shared part (docs/architecture.md §6). Pages are numbers here; the
// caller owns their memory. Pure, one owner.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace expertmesh::attention_worker {

/// HMAC-SHA-256 of a block and of everything before it.
using BlockKey = std::array<uint8_t, 32>;

/// What the state of a token depends on besides the tokens: two lanes share pages only if all of
/// it is equal. Without the server's secret no key can be computed from outside.
struct PrefixSeed {
  std::string tenant;
  std::string revision;
  std::string tokenizer;  // hash of tokenizer.json
  std::string profile;
  std::string engram_version;
  uint64_t first_position = 0;
};
BlockKey RootKey(std::string_view secret, const PrefixSeed& seed);

/// The full blocks of one sequence, their keys and their tokens.
class BlockChain {
 public:
  using Ids = std::shared_ptr<const std::vector<uint32_t>>;
  struct Block {
    BlockKey key;
    Ids ids;
  };

  BlockChain(const BlockKey& root, size_t block_tokens)
      : root_(root), block_tokens_(block_tokens) {}
  /// `tokens`: the whole sequence so far, of which earlier calls saw a beginning.
  void Extend(std::span<const uint32_t> tokens);
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  BlockKey root_;
  size_t block_tokens_;
  std::vector<Block> blocks_;
};

class PrefixCache {
 public:
  /// How many blocks from the start of `chain` are here, at most `blocks_max`; keys and token ids
  /// are both compared.
  size_t Match(const BlockChain& chain, size_t blocks_max) const;
  /// How many of the first `count` blocks of `chain`, all here, no lane holds.
  size_t Unheld(const BlockChain& chain, size_t count) const;
  /// The pages of the first `count` blocks, all here; each is held once more.
  std::vector<uint32_t> Hold(const BlockChain& chain, size_t count);
  /// One lane less holds the first `count` blocks. Returns how many nobody holds any more.
  size_t Release(const BlockChain& chain, size_t count);

  struct Inserted {
    uint32_t page = 0;      // the page that stands for the block from now on
    bool was_here = false;  // another lane's page, then; its state has the same bits
    bool was_held = false;
  };
  /// Block `index` of the chain was computed into `page`; the lane holds the blocks before it, and
  /// from now on this one. Nothing if the key stands for other tokens (it never should).
  std::optional<Inserted> Insert(const BlockChain& chain, size_t index, uint32_t page);

  /// Forgets the block that was used the longest time ago, of those that nobody holds and no block
  /// continues; its page.
  std::optional<uint32_t> Evict();

  size_t blocks() const { return blocks_.size(); }
  /// Blocks that nobody holds: all of them can go, leaf by leaf.
  size_t evictable() const { return evictable_; }

 private:
  struct KeyHash {
    size_t operator()(const BlockKey& key) const {
      size_t hash = 0;
      std::memcpy(&hash, key.data(), sizeof hash);
      return hash;
    }
  };
  struct Entry {
    BlockChain::Ids ids;
    uint32_t page = 0;
    uint32_t holders = 0;
    uint32_t children = 0;
    std::optional<BlockKey> parent;
    std::list<BlockKey>::iterator place;  // in leaves_, if it is there
    bool leaf = false;
  };

  void Touch(const BlockKey& key, Entry& entry);
  void Unlist(Entry& entry);

  std::unordered_map<BlockKey, Entry, KeyHash> blocks_;
  std::list<BlockKey> leaves_;  // blocks that can go now, oldest first
  size_t evictable_ = 0;
};

}  // namespace expertmesh::attention_worker
