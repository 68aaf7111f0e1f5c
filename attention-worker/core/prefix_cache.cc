#include "attention-worker/core/prefix_cache.h"

#include <algorithm>

#include "services/base/hash.h"

namespace expertmesh::attention_worker {

namespace {

// Parts with their lengths, so that no two lists of parts give the same bytes.
void AddPart(std::string& out, std::string_view part) {
  const uint64_t length = part.size();
  out.append(reinterpret_cast<const char*>(&length), sizeof length);
  out.append(part);
}

std::string_view Text(const BlockKey& key) {
  return {reinterpret_cast<const char*>(key.data()), key.size()};
}

}  // namespace

BlockKey RootKey(std::string_view secret, const PrefixSeed& seed) {
  std::string parts;
  for (std::string_view part : {std::string_view(seed.tenant), std::string_view(seed.revision),
                                std::string_view(seed.tokenizer), std::string_view(seed.profile),
                                std::string_view(seed.engram_version)}) {
    AddPart(parts, part);
  }
  parts.append(reinterpret_cast<const char*>(&seed.first_position), sizeof seed.first_position);
  return base::HmacSha256(secret, parts);
}

void BlockChain::Extend(std::span<const uint32_t> tokens) {
  while ((blocks_.size() + 1) * block_tokens_ <= tokens.size()) {
    const auto ids = tokens.subspan(blocks_.size() * block_tokens_, block_tokens_);
    const std::string_view bytes(reinterpret_cast<const char*>(ids.data()), ids.size_bytes());
    const BlockKey& parent = blocks_.empty() ? root_ : blocks_.back().key;
    blocks_.push_back({base::HmacSha256(Text(parent), bytes),
                       std::make_shared<const std::vector<uint32_t>>(ids.begin(), ids.end())});
  }
}

size_t PrefixCache::Match(const BlockChain& chain, size_t blocks_max) const {
  const size_t most = std::min(blocks_max, chain.blocks().size());
  size_t count = 0;
  for (; count < most; ++count) {
    const BlockChain::Block& block = chain.blocks()[count];
    const auto it = blocks_.find(block.key);
    if (it == blocks_.end() || *it->second.ids != *block.ids) break;
  }
  return count;
}

size_t PrefixCache::Unheld(const BlockChain& chain, size_t count) const {
  size_t unheld = 0;
  for (size_t i = 0; i < count; ++i) {
    unheld += blocks_.at(chain.blocks()[i].key).holders == 0 ? 1 : 0;
  }
  return unheld;
}

// A block that nobody holds and none continues waits at the end of leaves_.
void PrefixCache::Touch(const BlockKey& key, Entry& entry) {
  Unlist(entry);
  if (entry.holders > 0 || entry.children > 0) return;
  entry.place = leaves_.insert(leaves_.end(), key);
  entry.leaf = true;
}

void PrefixCache::Unlist(Entry& entry) {
  if (entry.leaf) leaves_.erase(entry.place);
  entry.leaf = false;
}

std::vector<uint32_t> PrefixCache::Hold(const BlockChain& chain, size_t count) {
  std::vector<uint32_t> pages;
  pages.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    Entry& entry = blocks_.at(chain.blocks()[i].key);
    if (entry.holders++ == 0) --evictable_;
    Unlist(entry);
    pages.push_back(entry.page);
  }
  return pages;
}

size_t PrefixCache::Release(const BlockChain& chain, size_t count) {
  size_t freed = 0;
  for (size_t i = count; i > 0; --i) {
    const BlockKey& key = chain.blocks()[i - 1].key;
    Entry& entry = blocks_.at(key);
    if (--entry.holders > 0) continue;
    ++freed;
    ++evictable_;
    Touch(key, entry);
  }
  return freed;
}

std::optional<PrefixCache::Inserted> PrefixCache::Insert(const BlockChain& chain, size_t index,
                                                         uint32_t page) {
  const BlockChain::Block& block = chain.blocks()[index];
  const auto [it, fresh] = blocks_.try_emplace(block.key);
  Entry& entry = it->second;
  if (!fresh) {
    if (*entry.ids != *block.ids) return std::nullopt;
    const bool held = entry.holders > 0;
    if (!held) --evictable_;
    ++entry.holders;
    Unlist(entry);
    return Inserted{entry.page, true, held};
  }
  entry.ids = block.ids;
  entry.page = page;
  entry.holders = 1;
  if (index > 0) {
    entry.parent = chain.blocks()[index - 1].key;
    ++blocks_.at(*entry.parent).children;
  }
  return Inserted{page, false, true};
}

std::optional<uint32_t> PrefixCache::Evict() {
  if (leaves_.empty()) return std::nullopt;
  const auto it = blocks_.find(leaves_.front());
  const uint32_t page = it->second.page;
  const std::optional<BlockKey> parent = it->second.parent;
  Unlist(it->second);
  blocks_.erase(it);
  --evictable_;
  if (parent) {
    Entry& above = blocks_.at(*parent);
    --above.children;
    // It was last used no later than the block that is gone: it is the next to go.
    if (above.holders == 0 && above.children == 0) {
      above.place = leaves_.insert(leaves_.begin(), *parent);
      above.leaf = true;
    }
  }
  return page;
}

}  // namespace expertmesh::attention_worker
