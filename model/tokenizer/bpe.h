// Byte-pair encoding of one piece: start from its bytes and apply the merge with the lowest rank,
// the leftmost of equals, until none applies.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer_spec.h"

namespace expertmesh::model {

/// Immutable; any thread may encode with a scratch of its own.
class Bpe {
 public:
  /// Buffers, reused between pieces. Not thread-safe.
  class Scratch {
    friend class Bpe;
    struct Symbol {
      uint32_t id;
      int32_t previous;  // −1: none
      int32_t next;
      bool live;
    };
    struct Candidate {
      uint32_t rank;
      int32_t left;  // index of the left symbol
      uint32_t result;
      bool operator>(const Candidate& other) const {
        return rank != other.rank ? rank > other.rank : left > other.left;
      }
    };
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
  };

  /// kBadTokenizer if a byte has no token or a merge names a token that is not in the vocabulary.
  static absl::StatusOr<Bpe> Create(const TokenizerSpec& spec);

  /// Appends the tokens of a piece (any bytes, below 2 GiB). O(n log n); one look-up where the
  /// piece becomes one token, as most words do.
  void Encode(std::string_view piece, Scratch& scratch, std::vector<uint32_t>& ids) const;

 private:
  struct Merge {
    uint32_t rank;  // kNoMerge: there is none
    uint32_t result;
  };
  static constexpr uint32_t kNoMerge = UINT32_MAX;
  static constexpr size_t kShortPiece = 32;  // bytes; longer ones are merged with a heap
  static uint64_t Key(uint32_t left, uint32_t right) { return (uint64_t{left} << 32) | right; }
  void EncodeShort(std::string_view piece, std::vector<uint32_t>& ids) const;
  void EncodeLong(std::string_view piece, Scratch& scratch, std::vector<uint32_t>& ids) const;
  Merge Find(uint32_t left, uint32_t right) const;
  void Propose(Scratch& scratch, int32_t left) const;
  void MergeAll(Scratch& scratch) const;
  void FindWholePieces(const TokenizerSpec& spec);

  std::array<uint32_t, 256> byte_ids_{};
  absl::flat_hash_map<uint64_t, Merge> merges_;  // by Key of the pair
  // Bytes → id of the pieces that are known to become one token: with ignore_merges every token,
  // else the tokens that their own bytes merge into.
  absl::flat_hash_map<std::string, uint32_t> whole_pieces_;
};

}  // namespace expertmesh::model
