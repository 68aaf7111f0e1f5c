#include "model/tokenizer/deepseek_splitter.h"

#include <cstddef>
#include <cstdint>

#include "model/tokenizer/char_classes.h"

namespace expertmesh::model {
namespace {

using namespace char_class;

// The first two splits cut the text into segments: up to three numbers, a run of CJK, or a run of
// all else. The third looks at each segment as if nothing stood around it; its alternatives are the
// methods below. Every method but Class returns the end of its match, or 0 if it does not match.
class Splitter {
 public:
  Splitter(std::string_view text, std::vector<std::string_view>& pieces)
      : text_(text), pieces_(pieces), flags_(CharClasses().data()) {}

  void Run() {
    while (at_ < text_.size()) {
      const Char c = Get(at_);
      if ((c.flags & kNumber) != 0) {
        Take(Numbers());
        continue;
      }
      const uint8_t segment = c.flags & kCjk;
      if (segment != segment_) CloseGap();
      segment_ = segment;
      if (const size_t end = Match(c); end != 0) {
        Take(end);
      } else {
        at_ = c.end;  // no alternative begins here: part of a gap, which is a piece too
      }
    }
    CloseGap();
  }

 private:
  struct Char {
    uint8_t flags;
    size_t end;
  };

  // The character at a position inside the text.
  Char Get(size_t at) const {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text_[at + i]); };
    const uint32_t first = byte(0);
    if (first < 0x80) return {flags_[first], at + 1};
    const auto tail = [&](size_t i) { return byte(i) & 0x3fu; };
    if (first < 0xe0) return {flags_[(first & 0x1f) << 6 | tail(1)], at + 2};
    if (first < 0xf0) return {flags_[(first & 0x0f) << 12 | tail(1) << 6 | tail(2)], at + 3};
    return {flags_[(first & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3)], at + 4};
  }

  // The same, with no flags where the segment ends.
  Char InSegment(size_t at) const {
    if (at >= text_.size()) return {0, at};
    const Char c = Get(at);
    return (c.flags & (kNumber | kCjk)) == segment_ ? c : Char{0, at};
  }

  size_t RunOf(uint8_t flag, size_t at) const {
    for (Char c = InSegment(at); (c.flags & flag) != 0; c = InSegment(at)) at = c.end;
    return at;
  }

  size_t Numbers() const {
    size_t end = at_;
    for (int count = 0; count < 3 && end < text_.size(); ++count) {
      const Char c = Get(end);
      if ((c.flags & kNumber) == 0) break;
      end = c.end;
    }
    return end;
  }

  size_t Match(const Char& c) const {
    if ((c.flags & kWord) != 0) return RunOf(kWord, c.end);
    if ((c.flags & kAsciiSign) != 0) {
      const size_t end = RunOf(kAsciiWord, c.end);
      if (end != c.end) return end;
    } else if ((c.flags & (kSign | kNewline)) == 0) {
      const size_t end = RunOf(kWord, c.end);
      if (end != c.end) return end;
    }
    if (const size_t end = Signs(c); end != 0) return end;
    return (c.flags & kSpace) != 0 ? Spaces() : 0;
  }

  // " ?[\p{P}\p{S}]+[\r\n]*"
  size_t Signs(const Char& c) const {
    const size_t begin = text_[at_] == ' ' ? c.end : at_;
    const size_t end = RunOf(kSign, begin);
    return end == begin ? 0 : RunOf(kNewline, end);
  }

  // "\s*[\r\n]+", else "\s+(?!\S)", else "\s+"
  size_t Spaces() const {
    size_t after_newline = 0;
    size_t last = at_;  // where the last white space begins
    size_t end = at_;
    for (Char c = InSegment(end); (c.flags & kSpace) != 0; c = InSegment(end)) {
      last = end;
      end = c.end;
      if ((c.flags & kNewline) != 0) after_newline = end;
    }
    if (after_newline != 0) return after_newline;
    const bool segment_ends = InSegment(end).end == end;
    return segment_ends || last == at_ ? end : last;
  }

  void CloseGap() {
    if (at_ > done_) pieces_.push_back(text_.substr(done_, at_ - done_));
    done_ = at_;
  }

  void Take(size_t end) {
    CloseGap();
    at_ = end;
    CloseGap();
  }

  const std::string_view text_;
  std::vector<std::string_view>& pieces_;
  const uint8_t* flags_;
  size_t at_ = 0;
  size_t done_ = 0;      // everything before is in a piece
  uint8_t segment_ = 0;  // kCjk, or 0 for all else
};

}  // namespace

bool IsDeepseekSplit(const std::vector<SplitStep>& steps) {
  if (steps.size() != kDeepseekSplits.size()) return false;
  for (size_t i = 0; i < steps.size(); ++i) {
    const SplitStep& step = steps[i];
    if (step.pattern != kDeepseekSplits[i] || step.behavior != SplitBehavior::kIsolated ||
        step.invert) {
      return false;
    }
  }
  return true;
}

void SplitDeepseek(std::string_view text, std::vector<std::string_view>& pieces) {
  pieces.clear();
  Splitter(text, pieces).Run();
}

}  // namespace expertmesh::model
