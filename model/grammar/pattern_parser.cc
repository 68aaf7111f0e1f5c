#include "model/grammar/pattern_parser.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/utf8.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

using Ranges = std::vector<CharRange>;
using Kind = PatternExpr::Kind;

constexpr int kDepthMax = 50;
constexpr uint32_t kRepeatMax = 1000;
constexpr char32_t kLast = 0x10FFFF;

Ranges Normal(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const CharRange& a, const CharRange& b) { return a.first < b.first; });
  Ranges merged;
  for (const CharRange& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

Ranges Complement(const Ranges& ranges, char32_t last) {
  Ranges inverse;
  char32_t next = 0;
  for (const CharRange& range : Normal(ranges)) {
    if (range.first > next) inverse.push_back({next, std::min<char32_t>(range.first - 1, last)});
    next = range.last + 1;
    if (next > last) break;
  }
  if (next <= last) inverse.push_back({next, last});
  return inverse;
}

Ranges WithoutSurrogates(const Ranges& ranges) {
  Ranges out;
  for (const CharRange& range : ranges) {
    if (range.first < 0xD800) out.push_back({range.first, std::min<char32_t>(range.last, 0xD7FF)});
    if (range.last > 0xDFFF) out.push_back({std::max<char32_t>(range.first, 0xE000), range.last});
  }
  return out;
}

// \d \w \s, and \D \W \S, which stand for ASCII only here: engines disagree about the rest.
std::optional<Ranges> ShorthandOf(char32_t letter) {
  static const Ranges kDigits = {{'0', '9'}};
  static const Ranges kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  static const Ranges kSpace = {{'\t', '\r'}, {' ', ' '}};
  switch (letter) {
    case 'd':
      return kDigits;
    case 'w':
      return kWord;
    case 's':
      return kSpace;
    case 'D':
      return Complement(kDigits, 0x7F);
    case 'W':
      return Complement(kWord, 0x7F);
    case 'S':
      return Complement(kSpace, 0x7F);
    default:
      return std::nullopt;
  }
}

std::optional<char32_t> ControlOf(char32_t letter) {
  switch (letter) {
    case 't':
      return U'\t';
    case 'n':
      return U'\n';
    case 'r':
      return U'\r';
    case 'f':
      return U'\f';
    case 'v':
      return U'\v';
    case '0':
      return U'\0';
    default:
      return std::nullopt;
  }
}

class Parser {
 public:
  explicit Parser(std::string_view utf8) {
    for (size_t at = 0; at < utf8.size();) {
      const Utf8Char c = DecodeUtf8(utf8.substr(at));
      text_.push_back(c.value);
      at += std::max<size_t>(1, c.length);
    }
  }

  absl::StatusOr<std::vector<PatternBranch>> Parse() {
    std::vector<PatternBranch> branches;
    do {
      PatternBranch branch;
      while (Take('^')) branch.from_begin = true;
      EM_ASSIGN_OR_RETURN(branch.expr, Concat(0));
      while (Take('$')) branch.to_end = true;
      if (at_ < text_.size() && text_[at_] != '|') return Refused("has something behind a $");
      branches.push_back(std::move(branch));
    } while (Take('|'));
    if (at_ < text_.size()) return Refused("has a ) that nothing opens");
    return branches;
  }

 private:
  absl::Status Refused(std::string_view what) const {
    return base::Error(base::Reason::kSchemaUnsupported,
                       absl::StrCat("pattern: character ", at_ + 1, " ", std::string(what)));
  }
  bool Take(char32_t c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool Ended() const { return at_ >= text_.size(); }

  absl::StatusOr<PatternExpr> Alternate(int depth) {
    PatternExpr all;
    all.kind = Kind::kAlternate;
    do {
      EM_ASSIGN_OR_RETURN(PatternExpr branch, Concat(depth));
      all.parts.push_back(std::move(branch));
    } while (Take('|'));
    return all;
  }

  absl::StatusOr<PatternExpr> Concat(int depth) {
    PatternExpr all;
    while (!Ended() && text_[at_] != '|' && text_[at_] != ')') {
      if (text_[at_] == '$' && depth == 0) break;
      if (text_[at_] == '$' || text_[at_] == '^') {
        return Refused("is an anchor that is not at an end of the pattern");
      }
      EM_ASSIGN_OR_RETURN(PatternExpr atom, Atom(depth));
      EM_ASSIGN_OR_RETURN(PatternExpr part, Quantified(std::move(atom)));
      all.parts.push_back(std::move(part));
    }
    if (!Ended() && text_[at_] == ')' && depth == 0) return Refused("closes what nothing opens");
    return all;
  }

  absl::StatusOr<PatternExpr> Quantified(PatternExpr atom) {
    uint32_t least = 0;
    uint32_t most = PatternExpr::kUnbounded;
    if (Take('*')) {
    } else if (Take('+')) {
      least = 1;
    } else if (Take('?')) {
      most = 1;
    } else if (!Ended() && text_[at_] == '{') {
      EM_RETURN_IF_ERROR(Counts(least, most));
    } else {
      return atom;
    }
    Take('?');  // lazy: the same texts
    if (!Ended() && (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?')) {
      return Refused("repeats a repetition");
    }
    PatternExpr repeat;
    repeat.kind = Kind::kRepeat;
    repeat.least = least;
    repeat.most = most;
    repeat.parts.push_back(std::move(atom));
    return repeat;
  }

  absl::Status Counts(uint32_t& least, uint32_t& most) {
    const size_t start = at_++;
    const auto number = [&]() -> std::optional<uint32_t> {
      uint32_t value = 0;
      const size_t first = at_;
      while (!Ended() && text_[at_] >= '0' && text_[at_] <= '9' && value <= kRepeatMax) {
        value = value * 10 + static_cast<uint32_t>(text_[at_++] - '0');
      }
      return at_ == first ? std::nullopt : std::optional(value);
    };
    const auto low = number();
    std::optional<uint32_t> high = low;
    if (Take(',')) {
      high = number();
      if (!high) high = PatternExpr::kUnbounded;
    }
    if (!low || !Take('}') || *low > *high) {
      at_ = start;
      return Refused("begins no repetition {n}, {n,} or {n,m}; write \\{ for the sign itself");
    }
    if (*low > kRepeatMax || (*high > kRepeatMax && *high != PatternExpr::kUnbounded)) {
      at_ = start;
      return Refused(absl::StrCat("repeats more than ", kRepeatMax, " times"));
    }
    least = *low;
    most = *high;
    return absl::OkStatus();
  }

  static PatternExpr Chars(Ranges ranges) {
    PatternExpr expr;
    expr.kind = Kind::kChars;
    expr.chars = WithoutSurrogates(Normal(std::move(ranges)));
    return expr;
  }

  absl::StatusOr<PatternExpr> Atom(int depth) {
    if (Take('(')) return Group(depth + 1);
    if (Take('[')) return Class();
    if (Take('.')) {
      return Chars(Complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}, kLast));
    }
    if (Take('\\')) {
      Ranges ranges;
      EM_RETURN_IF_ERROR(Escape(ranges));
      return Chars(std::move(ranges));
    }
    const char32_t c = text_[at_];
    if (c == '*' || c == '+' || c == '?' || c == '{') return Refused("repeats nothing");
    ++at_;
    return Chars({{c, c}});
  }

  absl::StatusOr<PatternExpr> Group(int depth) {
    if (depth > kDepthMax) return Refused("is nested too deep");
    if (Take('?')) {
      const bool named = Take('<');
      if (!named && !Take(':')) return Refused("begins a look-around, which is not supported");
      if (named && !Ended() && (text_[at_] == '=' || text_[at_] == '!')) {
        return Refused("begins a look-around, which is not supported");
      }
      while (named && !Ended() && text_[at_] != '>') ++at_;
      if (named && !Take('>')) return Refused("is inside the name of a group that has no end");
    }
    EM_ASSIGN_OR_RETURN(PatternExpr inner, Alternate(depth));
    if (!Take(')')) return Refused("should be a ) that closes a group");
    return inner;
  }

  // Behind a backslash.
  absl::Status Escape(Ranges& ranges) {
    if (Ended()) return Refused("is missing behind a backslash");
    const char32_t letter = text_[at_++];
    if (const auto shorthand = ShorthandOf(letter)) {
      ranges.insert(ranges.end(), shorthand->begin(), shorthand->end());
      return absl::OkStatus();
    }
    std::optional<char32_t> c = ControlOf(letter);
    if (letter == 'x') c = Hex(2);
    if (letter == 'u') c = Hex(4);
    const bool alnum = (letter >= '0' && letter <= '9') || (letter >= 'A' && letter <= 'Z') ||
                       (letter >= 'a' && letter <= 'z');
    if (!c && !alnum) c = letter;
    if (!c) {
      --at_;
      return Refused("makes an escape that is not supported");
    }
    ranges.push_back({*c, *c});
    return absl::OkStatus();
  }

  std::optional<char32_t> Hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      if (Ended()) return std::nullopt;
      const char32_t c = text_[at_++] | 0x20;
      if (c >= '0' && c <= '9') {
        value = value * 16 + (c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value = value * 16 + (c - 'a' + 10);
      } else {
        return std::nullopt;
      }
    }
    return value;
  }

  absl::Status ClassAtom(Ranges& ranges) {
    if (!Take('\\')) {
      ranges.push_back({text_[at_], text_[at_]});
      ++at_;
      return absl::OkStatus();
    }
    if (Take('b')) {
      ranges.push_back({'\b', '\b'});
      return absl::OkStatus();
    }
    if (Take('-')) {
      ranges.push_back({'-', '-'});
      return absl::OkStatus();
    }
    return Escape(ranges);
  }

  absl::StatusOr<PatternExpr> Class() {
    const bool negated = Take('^');
    Ranges ranges;
    while (!Ended() && text_[at_] != ']') {
      Ranges first;
      EM_RETURN_IF_ERROR(ClassAtom(first));
      const bool range = at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']';
      if (range) {
        ++at_;
        Ranges last;
        EM_RETURN_IF_ERROR(ClassAtom(last));
        const bool single = first.size() == 1 && last.size() == 1 &&
                            first[0].first == first[0].last && last[0].first == last[0].last;
        if (!single || first[0].first > last[0].first)
          return Refused("ends no range of characters");
        first[0].last = last[0].first;
      }
      ranges.insert(ranges.end(), first.begin(), first.end());
    }
    if (!Take(']')) return Refused("should be a ] that closes a class");
    return Chars(negated ? Complement(ranges, kLast) : ranges);
  }

  std::vector<char32_t> text_;
  size_t at_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<PatternBranch>> ParsePattern(std::string_view utf8) {
  constexpr size_t kBytesMax = 4096;
  if (utf8.size() > kBytesMax) {
    return base::Error(base::Reason::kSchemaUnsupported,
                       absl::StrCat("pattern: longer than ", kBytesMax, " bytes"));
  }
  return Parser(utf8).Parse();
}

}  // namespace expertmesh::model
