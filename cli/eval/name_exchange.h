// What the memory must read so that two names change places: the rows of one name's n-grams for
// the other's, in the same surroundings. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/eval/eval_input.h"
#include "model/engram_hash.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::cli {

/// Whether the name stands in the text as a word of its own, not inside another.
bool HasName(std::string_view text, std::string_view name);
/// The text with every such `from` replaced.
std::string ReplaceName(std::string_view text, std::string_view from, std::string_view to);

/// Tokens [first, end) that spell the name, for each place where it stands: a token may bring the
/// space before the name along, nothing else. kInvalidArgument if tokens and name do not end
/// together.
struct TokenRange {
  size_t first = 0;
  size_t end = 0;
};
absl::StatusOr<std::vector<TokenRange>> FindName(const model::Tokenizer& tokenizer,
                                                 std::span<const uint32_t> ids,
                                                 std::string_view name);

/// Row pairs of one layer, symmetric: partner[a] = b and partner[b] = a.
using RowPairs = std::map<uint64_t, uint64_t>;

/// Collects pairs from sequences that differ in the names alone.
class NameExchange {
 public:
  /// `hash` outlives it.
  explicit NameExchange(const model::EngramHash& hash)
      : hash_(hash), pairs_(hash.layers()), refused_(hash.layers()) {}

  /// Two sequences of the same length, equal but for the tokens of the names: pairs the rows that
  /// both read at the same position and column, where they differ. A row that has another partner
  /// already keeps it, and the pair is counted as a collision, once.
  void Add(std::span<const uint32_t> first, std::span<const uint32_t> second);
  /// A sequence that has nothing to do with the names: counts the reads of rows that are paired.
  /// After all Add.
  void CountForeign(std::span<const uint32_t> tokens);

  const std::vector<RowPairs>& pairs() const { return pairs_; }  // [layers]
  size_t rows() const;
  size_t collisions() const;
  uint64_t foreign_reads() const { return foreign_reads_; }
  uint64_t foreign_hits() const { return foreign_hits_; }

 private:
  std::vector<uint64_t> Rows(size_t place, std::span<const uint32_t> tokens) const;

  const model::EngramHash& hash_;
  std::vector<RowPairs> pairs_;
  std::vector<std::set<std::pair<uint64_t, uint64_t>>> refused_;  // by layer
  uint64_t foreign_reads_ = 0;
  uint64_t foreign_hits_ = 0;
};

}  // namespace expertmesh::cli
