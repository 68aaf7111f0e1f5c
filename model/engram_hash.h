// From tokens to rows of the memory's tables (docs/model-family.md §4.0): exact integers, read from
// the checkpoint, a pure function of the tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/config.h"

namespace expertmesh::model {

/// Immutable after Load; any thread.
class EngramHash {
 public:
  /// Reads and checks token classes, primes and multipliers of every Engram layer
  /// (docs/model-family.md §3); kBadCheckpoint naming the tensor. Without a memory: empty.
  static absl::StatusOr<EngramHash> Load(const Checkpoint& checkpoint, const Config& config);

  size_t layers() const { return layers_.size(); }
  size_t columns() const { return columns_; }
  /// Tokens before a token that its rows depend on.
  size_t lookback() const { return ngram_ == 0 ? 0 : ngram_ - 1; }

  /// Row ids [columns] of `token` in the layer at `place` of engram_layer_ids. `previous`: the
  /// sequence's tokens before it, at least the last lookback() that exist; before the first one
  /// stands the pad class.
  void Rows(size_t place, std::span<const uint32_t> previous, uint32_t token, uint64_t* out) const;

 private:
  struct LayerTables {
    std::vector<uint64_t> primes;       // [columns]
    std::vector<uint64_t> offsets;      // [columns], exclusive sums of primes
    std::vector<uint64_t> multipliers;  // [n-gram order]
  };

  size_t ngram_ = 0;  // N
  size_t heads_ = 0;
  size_t columns_ = 0;
  uint64_t pad_class_ = 0;
  std::vector<uint32_t> token_class_;  // [vocab]
  std::vector<LayerTables> layers_;
};

}  // namespace expertmesh::model
