#include "model/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr size_t kPatternBytesMax = 64 * 1024;
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 8 * 1024 * 1024;

// White_Space, the meaning of \s in Oniguruma. PCRE2's own \s also has U+180E.
constexpr std::string_view kSpaces =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

absl::Status BadPattern(std::string_view pattern, std::string_view why) {
  const std::string shown(pattern.substr(0, 200));
  return base::Error(base::Reason::kBadTokenizer,
                     absl::StrCat("pre_tokenizer expression \"", absl::Utf8SafeCEscape(shown),
                                  "\": ", std::string(why)));
}

// Copies a pattern for Oniguruma as one for PCRE2.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (position_ < pattern_.size()) {
      const char c = pattern_[position_];
      if (c == '\\') {
        EM_RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        EM_RETURN_IF_ERROR(InClass(c));
      } else if (StartsWith("(?m") || StartsWith("(?s")) {
        return BadPattern(pattern_, "the options m and s are not supported");
      } else {
        in_class_ = c == '[';
        Copy(StartsWith("[^") ? 2 : 1);
      }
    }
    return std::move(out_);
  }

 private:
  bool StartsWith(std::string_view text) const {
    return pattern_.substr(position_, text.size()) == text;
  }

  void Copy(size_t bytes) {
    out_.append(pattern_.substr(position_, bytes));
    position_ += bytes;
  }

  absl::Status Escape() {
    if (StartsWith("\\h") || StartsWith("\\H")) {
      return BadPattern(pattern_, "\\h is not supported, write the characters");
    }
    const bool space = StartsWith("\\s");
    if (!space && (in_class_ || !StartsWith("\\S"))) {
      Copy(2);
      return absl::OkStatus();
    }
    const char* open = in_class_ ? "" : space ? "[" : "[^";
    absl::StrAppend(&out_, open, std::string(kSpaces), in_class_ ? "" : "]");
    position_ += 2;
    return absl::OkStatus();
  }

  absl::Status InClass(char c) {
    if (StartsWith("&&") || (c == '[' && !StartsWith("[:"))) {
      return BadPattern(pattern_, "nested and intersected character classes are not supported");
    }
    if (c == '[') {
      const size_t end = pattern_.find(":]", position_);
      Copy(end == std::string_view::npos ? pattern_.size() : end + 2 - position_);
      return absl::OkStatus();
    }
    if (c == ']') in_class_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  const std::string_view pattern_;
  size_t position_ = 0;
  bool in_class_ = false;
  std::string out_;
};

PCRE2_SPTR Bytes(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct MatchScratch::Impl {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);  // only the whole match is wanted
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);
};

MatchScratch::MatchScratch() = default;

MatchScratch::~MatchScratch() {
  if (impl_ == nullptr) return;
  pcre2_jit_stack_free(impl_->stack);
  pcre2_match_context_free(impl_->context);
  pcre2_match_data_free(impl_->data);
}

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) return BadPattern(pattern, "longer than 64 KiB");
  EM_ASSIGN_OR_RETURN(const std::string translated, Translator(pattern).Run());
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  // As in Oniguruma's Ruby syntax, ^ and $ match at every line.
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  pcre2_code* code =
      pcre2_compile(Bytes(translated), translated.size(), kOptions, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) return BadPattern(pattern, ErrorText(error));
  std::shared_ptr<const void> owner(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) return BadPattern(pattern, "it can match nothing");
  // Without JIT, PCRE2 interprets: slower, the same matches.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return Regex(std::move(owner));
}

std::string Regex::Quote(std::string_view text) {
  std::string quoted;
  for (const char c : text) {
    if (absl::ascii_ispunct(static_cast<unsigned char>(c))) quoted.push_back('\\');
    quoted.push_back(c);
  }
  return quoted;
}

absl::Status Regex::FindAll(std::string_view text, MatchScratch& scratch,
                            std::vector<ByteRange>& matches) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  if (scratch.impl_ == nullptr) {
    scratch.impl_ = std::make_unique<MatchScratch::Impl>();
    MatchScratch::Impl& made = *scratch.impl_;
    if (made.context != nullptr) pcre2_jit_stack_assign(made.context, nullptr, made.stack);
  }
  pcre2_match_data* data = scratch.impl_->data;
  matches.clear();
  size_t from = 0;
  while (from < text.size()) {
    const int rc = pcre2_match(code, Bytes(text), text.size(), from, PCRE2_NO_UTF_CHECK, data,
                               scratch.impl_->context);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return base::Error(base::Reason::kInvalidArgument,
                         absl::StrCat("cannot split the text into words (", ErrorText(rc),
                                      "): send shorter lines"));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data);
    if (range[0] < from || range[1] <= range[0]) {  // \K can move the start
      return base::Error(
          base::Reason::kInvalidArgument,
          "cannot split the text into words: an expression of tokenizer.json uses \\K");
    }
    matches.push_back({range[0], range[1]});
    from = range[1];
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::model
