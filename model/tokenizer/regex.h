// A compiled expression of tokenizer.json, run by PCRE2 (UTF, Unicode classes, JIT). The files are
// written for Oniguruma; what the two engines read differently is translated or refused.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// A half-open range of bytes.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};

/// Working memory of matching. One per call of the tokenizer: not thread-safe, reusable.
class MatchScratch {
 public:
  /// Takes no memory before the first match.
  MatchScratch();
  ~MatchScratch();
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

 private:
  friend class Regex;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Immutable; any thread may match with a scratch of its own.
class Regex {
 public:
  /// kBadTokenizer naming the expression and why; also for one that can match nothing.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  /// An expression that matches exactly this text.
  static std::string Quote(std::string_view text);

  /// All matches, left to right, without overlap. `text` is valid UTF-8 and is matched as if
  /// nothing stood around it. kInvalidArgument if the match limit is hit: never a partial answer.
  absl::Status FindAll(std::string_view text, MatchScratch& scratch,
                       std::vector<ByteRange>& matches) const;

 private:
  explicit Regex(std::shared_ptr<const void> code) : code_(std::move(code)) {}

  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace expertmesh::model
