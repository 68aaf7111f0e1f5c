#include "model/tokenizer/bpe.h"

#include <algorithm>
#include <functional>

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
  if (spec.ignore_merges) bpe.whole_pieces_ = std::move(vocab);
  return bpe;
}

void Bpe::Encode(std::string_view piece, Scratch& scratch, std::vector<uint32_t>& ids) const {
  if (!whole_pieces_.empty()) {
    const auto it = whole_pieces_.find(SpellBytes(piece));
    if (it != whole_pieces_.end()) {
      ids.push_back(it->second);
      return;
    }
  }
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
  const auto it = merges_.find(Key(symbol.id, right_id));
  if (it == merges_.end()) return;
  scratch.heap_.push_back({it->second.rank, left, it->second.result});
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
    const auto it = merges_.find(Key(left.id, right.id));
    if (it == merges_.end() || it->second.rank != top.rank) continue;
    left.id = top.result;
    right.live = false;
    left.next = right.next;
    if (left.next >= 0) scratch.symbols_[static_cast<size_t>(left.next)].previous = top.left;
    Propose(scratch, left.previous);
    Propose(scratch, top.left);
  }
}

}  // namespace expertmesh::model
