#include "model/tokenizer/char_classes.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "model/tokenizer/regex.h"
#include "model/tokenizer/utf8.h"

namespace expertmesh::model {
namespace {

using namespace char_class;

constexpr char32_t kCodePoints = 0x110000;

bool IsSurrogate(char32_t c) { return c >= 0xd800 && c < 0xe000; }

// Sets `flag` for every character that the expression matches, of a text with every character.
void Mark(const std::string& all, const char* pattern, uint8_t flag, std::vector<uint8_t>& flags) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  MatchScratch scratch;
  std::vector<ByteRange> matches;
  // The expressions are constants: they compile and stay within every limit.
  if (!regex.ok() || !regex->FindAll(all, scratch, matches).ok()) std::abort();
  for (const ByteRange& match : matches) {
    std::string_view rest = std::string_view(all).substr(match.begin, match.end - match.begin);
    while (!rest.empty()) {
      const Utf8Char character = DecodeUtf8(rest);
      flags[character.value] |= flag;
      rest.remove_prefix(character.length);
    }
  }
}

std::vector<uint8_t> MakeClasses() {
  std::vector<uint8_t> flags(kCodePoints, 0);
  std::string all;
  for (char32_t c = 0; c < kCodePoints; ++c) {
    if (!IsSurrogate(c)) AppendUtf8(c, all);
  }
  Mark(all, R"([\p{L}\p{M}]+)", kWord, flags);
  Mark(all, R"([\p{P}\p{S}]+)", kSign, flags);
  Mark(all, R"(\p{N}+)", kNumber, flags);
  Mark(all, R"(\s+)", kSpace, flags);
  Mark(all, R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)", kCjk, flags);
  flags['\r'] |= kNewline;
  flags['\n'] |= kNewline;
  for (unsigned char c = 0; c < 128; ++c) {
    if (absl::ascii_isalpha(c)) flags[c] |= kAsciiWord;
    if (absl::ascii_ispunct(c)) flags[c] |= kAsciiSign;
  }
  return flags;
}

}  // namespace

const std::vector<uint8_t>& CharClasses() {
  static const auto& flags = *new std::vector<uint8_t>(MakeClasses());
  return flags;
}

}  // namespace expertmesh::model
