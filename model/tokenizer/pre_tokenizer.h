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
  /// kBadTokenizer if an expression does not compile.
  static absl::StatusOr<PreTokenizer> Create(const std::vector<SplitStep>& steps);

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
};

}  // namespace expertmesh::model
