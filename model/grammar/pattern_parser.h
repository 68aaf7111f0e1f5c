// The subset of ECMA-262 regular expressions that a schema's `pattern` may use
// (docs/structured-output.md): no look-around, no back references, anchors only at the ends.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// Code points from `first` to `last`, both included; never a surrogate.
struct CharRange {
  char32_t first = 0;
  char32_t last = 0;
  bool operator==(const CharRange&) const = default;
};

struct PatternExpr {
  enum class Kind : uint8_t { kChars, kConcat, kAlternate, kRepeat };
  static constexpr uint32_t kUnbounded = UINT32_MAX;

  Kind kind = Kind::kConcat;
  std::vector<CharRange> chars = {};    // kChars: sorted, apart from each other; none: no character
  std::vector<PatternExpr> parts = {};  // of the others; kRepeat: one
  uint32_t least = 0;                   // kRepeat
  uint32_t most = kUnbounded;
};

/// One alternative of the whole pattern.
struct PatternBranch {
  PatternExpr expr;
  bool from_begin = false;  // ^
  bool to_end = false;      // $
};

/// kSchemaUnsupported, naming what is not in the subset and where.
absl::StatusOr<std::vector<PatternBranch>> ParsePattern(std::string_view utf8);

}  // namespace expertmesh::model
