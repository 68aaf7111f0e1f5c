// Cuts text into the pieces inside which byte pairs may merge (docs/formats.md §8.1).
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/regex.h"
#include "model/tokenizer/tokenizer_spec.h"

namespace expertmesh::model {

/// Immutable; any thread may split with a scratch of its own.
class PreTokenizer {
 public:
  /// kBadTokenizer if an expression does not compile. The splits of DeepSeek are done by hand
  /// (deepseek_splitter.h) unless `expressions_only`, which is the reference for it.
  static absl::StatusOr<PreTokenizer> Create(const std::vector<SplitStep>& steps,
                                             bool expressions_only = false);

  /// The non-empty pieces of valid UTF-8 text, in order, as views into it. Replaces `pieces`.
  absl::Status Split(std::string_view text, MatchScratch& scratch,
                     std::vector<std::string_view>& pieces) const;

 private:
  struct Step {
    Regex regex;
    SplitBehavior behavior;
    bool invert;
  };
  std::vector<Step> steps_;
  bool by_hand_ = false;
};

}  // namespace expertmesh::model
