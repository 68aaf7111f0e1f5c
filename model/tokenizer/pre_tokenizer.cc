#include "model/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "model/tokenizer/char_classes.h"
#include "model/tokenizer/deepseek_splitter.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

struct Part {
  ByteRange range;
  bool is_match = false;
};

// The matches and the gaps between them: a partition of the text.
void Partition(size_t text_bytes, const std::vector<ByteRange>& matches, bool invert,
               std::vector<Part>& parts) {
  parts.clear();
  size_t end = 0;
  for (const ByteRange& match : matches) {
    if (match.begin > end) parts.push_back({{end, match.begin}, invert});
    parts.push_back({match, !invert});
    end = match.end;
  }
  if (end < text_bytes) parts.push_back({{end, text_bytes}, invert});
}

// Contiguous: runs of matches, and of gaps, become one part. Merged: a match goes to the gap before
// it (or behind it); of neighbouring matches only the first (or last) does.
void Join(SplitBehavior behavior, std::vector<Part>& parts) {
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> joined;
  bool previous_is_match = false;
  for (const Part& part : parts) {
    const bool join = behavior == SplitBehavior::kContiguous ? part.is_match == previous_is_match
                                                             : part.is_match && !previous_is_match;
    if (join && !joined.empty()) {
      ByteRange& last = joined.back().range;
      last = {std::min(last.begin, part.range.begin), std::max(last.end, part.range.end)};
    } else {
      joined.push_back(part);
    }
    previous_is_match = part.is_match;
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  parts = std::move(joined);
}

void ApplyBehavior(SplitBehavior behavior, std::vector<Part>& parts) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kRemoved:
      std::erase_if(parts, [](const Part& part) { return part.is_match; });
      return;
    case SplitBehavior::kMergedWithPrevious:
    case SplitBehavior::kMergedWithNext:
    case SplitBehavior::kContiguous:
      Join(behavior, parts);
  }
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Create(const std::vector<SplitStep>& steps,
                                                  bool expressions_only) {
  PreTokenizer result;
  if (!expressions_only && IsDeepseekSplit(steps)) {
    result.by_hand_ = true;
    CharClasses();  // made now, not under the first request
    return result;
  }
  for (const SplitStep& step : steps) {
    EM_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(step.pattern));
    result.steps_.push_back({std::move(regex), step.behavior, step.invert});
  }
  return result;
}

absl::Status PreTokenizer::Split(std::string_view text, MatchScratch& scratch,
                                 std::vector<std::string_view>& pieces) const {
  if (by_hand_) {
    SplitDeepseek(text, pieces);
    return absl::OkStatus();
  }
  pieces.clear();
  if (!text.empty()) pieces.push_back(text);
  std::vector<std::string_view> next;
  std::vector<ByteRange> matches;
  std::vector<Part> parts;
  for (const Step& step : steps_) {
    next.clear();
    for (const std::string_view piece : pieces) {
      EM_RETURN_IF_ERROR(step.regex.FindAll(piece, scratch, matches));
      Partition(piece.size(), matches, step.invert, parts);
      ApplyBehavior(step.behavior, parts);
      for (const Part& part : parts) {
        next.push_back(piece.substr(part.range.begin, part.range.end - part.range.begin));
      }
    }
    pieces.swap(next);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::model
