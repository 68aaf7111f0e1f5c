#include "model/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/byte_map.h"
#include "services/base/status.h"

namespace expertmesh::model {

absl::StatusOr<Bpe> Bpe::Create(const TokenizerSpec& spec) {
  absl::flat_hash_map<std::string, uint32_t> vocab;
  vocab.reserve(spec.vocab.size());
  for (const TokenEntry& token : spec.vocab) vocab.emplace(token.content, token.id);

  Bpe bpe;
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto it = vocab.find(SpellBytes(std::string(1, static_cast<char>(byte))));
    if (it == vocab.end()) {
      return BadTokenizer(absl::StrCat("model.vocab has no token for byte ", byte));
    }
    bpe.byte_ids_[byte] = it->second;
  }
  bpe.merges_.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    const auto left_it = vocab.find(left);
    const auto right_it = vocab.find(right);
    const auto result_it = vocab.find(absl::StrCat(left, right));
    if (left_it == vocab.end() || right_it == vocab.end() || result_it == vocab.end()) {
      return BadTokenizer(absl::StrCat("model.merges entry ", rank, " (", ShowToken(left), " + ",
                                       ShowToken(right), ") names a token not in model.vocab"));
    }
    bpe.merges_.insert_or_assign(Key(left_it->second, right_it->second),
                                 Merge{static_cast<uint32_t>(rank), result_it->second});
  }
  bpe.FindWholePieces(spec);
  return bpe;
}

void Bpe::FindWholePieces(const TokenizerSpec& spec) {
  absl::flat_hash_map<std::string, uint32_t> whole;
  whole.reserve(spec.vocab.size());
  Scratch scratch;
  std::vector<uint32_t> ids;
  for (const TokenEntry& token : spec.vocab) {
    const std::optional<std::string> bytes = UnspellBytes(token.content);
    if (!bytes.has_value() || bytes->empty()) continue;
    if (!spec.ignore_merges) {
      ids.clear();
      Encode(*bytes, scratch, ids);
      if (ids.size() != 1) continue;
      whole.emplace(*bytes, ids[0]);
    } else {
      whole.emplace(*bytes, token.id);
    }
  }
  whole_pieces_ = std::move(whole);
}

void Bpe::Encode(std::string_view piece, Scratch& scratch, std::vector<uint32_t>& ids) const {
  const auto it = whole_pieces_.find(absl::string_view(piece.data(), piece.size()));
  if (it != whole_pieces_.end()) {
    ids.push_back(it->second);
  } else if (piece.size() <= kShortPiece) {
    EncodeShort(piece, ids);
  } else {
    EncodeLong(piece, scratch, ids);
  }
}

Bpe::Merge Bpe::Find(uint32_t left, uint32_t right) const {
  const auto it = merges_.find(Key(left, right));
  return it == merges_.end() ? Merge{kNoMerge, 0} : it->second;
}

// The same merges in the same order, by looking for the lowest rank each time.
void Bpe::EncodeShort(std::string_view piece, std::vector<uint32_t>& ids) const {
  std::array<uint32_t, kShortPiece> symbols;
  std::array<Merge, kShortPiece> merges;  // [i]: of symbols i and i + 1
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) symbols[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = Find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoMerge) break;
    symbols[best] = merges[best].result;
    --count;
    std::copy(symbols.begin() + best + 2, symbols.begin() + count + 1, symbols.begin() + best + 1);
    if (best + 1 < count) {
      std::copy(merges.begin() + best + 2, merges.begin() + count, merges.begin() + best + 1);
      merges[best] = Find(symbols[best], symbols[best + 1]);
    }
    if (best > 0) merges[best - 1] = Find(symbols[best - 1], symbols[best]);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.begin() + count);
}

void Bpe::EncodeLong(std::string_view piece, Scratch& scratch, std::vector<uint32_t>& ids) const {
  scratch.symbols_.clear();
  const auto count = static_cast<int32_t>(piece.size());
  for (int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(piece[static_cast<size_t>(i)]);
    scratch.symbols_.push_back({byte_ids_[byte], i - 1, i + 1 < count ? i + 1 : -1, true});
  }
  MergeAll(scratch);
  for (const Scratch::Symbol& symbol : scratch.symbols_) {
    if (symbol.live) ids.push_back(symbol.id);
  }
}

// Puts the merge of a symbol with its right neighbour on the heap, if there is one.
void Bpe::Propose(Scratch& scratch, int32_t left) const {
  if (left < 0) return;
  const Scratch::Symbol& symbol = scratch.symbols_[static_cast<size_t>(left)];
  if (symbol.next < 0) return;
  const uint32_t right_id = scratch.symbols_[static_cast<size_t>(symbol.next)].id;
  const Merge merge = Find(symbol.id, right_id);
  if (merge.rank == kNoMerge) return;
  scratch.heap_.push_back({merge.rank, left, merge.result});
  std::push_heap(scratch.heap_.begin(), scratch.heap_.end(), std::greater<>());
}

void Bpe::MergeAll(Scratch& scratch) const {
  scratch.heap_.clear();
  for (size_t i = 0; i < scratch.symbols_.size(); ++i) Propose(scratch, static_cast<int32_t>(i));
  while (!scratch.heap_.empty()) {
    std::pop_heap(scratch.heap_.begin(), scratch.heap_.end(), std::greater<>());
    const Scratch::Candidate top = scratch.heap_.back();
    scratch.heap_.pop_back();
    Scratch::Symbol& left = scratch.symbols_[static_cast<size_t>(top.left)];
    if (!left.live || left.next < 0) continue;
    Scratch::Symbol& right = scratch.symbols_[static_cast<size_t>(left.next)];
    // A candidate is stale if either symbol has merged since it was proposed.
    if (Find(left.id, right.id).rank != top.rank) continue;
    left.id = top.result;
    right.live = false;
    left.next = right.next;
    if (left.next >= 0) scratch.symbols_[static_cast<size_t>(left.next)].previous = top.left;
    Propose(scratch, left.previous);
    Propose(scratch, top.left);
  }
}

}  // namespace expertmesh::model
