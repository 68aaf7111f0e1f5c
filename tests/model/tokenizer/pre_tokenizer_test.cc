#include "model/tokenizer/pre_tokenizer.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/tokenizer/preset_writer.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<std::string> Split(const std::vector<SplitStep>& steps, std::string_view text) {
  const absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Create(steps);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  MatchScratch scratch;
  std::vector<std::string_view> pieces;
  EXPECT_TRUE(pre_tokenizer->Split(text, scratch, pieces).ok());
  return {pieces.begin(), pieces.end()};
}

std::vector<SplitStep> DeepSeekSteps() {
  return ParseTokenizerJson(PresetTokenizerJson(kPresetMinVocab).value())->splits;
}

struct Golden {
  std::string text;
  std::vector<std::string> pieces;
};

// Compared with the `tokenizers` library on DeepSeek's tokenizer.json.
TEST(PreTokenizer, SplitsAsDeepSeekDoes) {
  const Golden goldens[] = {
      {"Hello, world! 12345", {"Hello", ",", " world", "!", " ", "123", "45"}},
      {"a  b\n\n  c", {"a", " ", " b", "\n\n", " ", " c"}},
      {"x=foo(bar)", {"x", "=foo", "(bar", ")"}},
      {"don't stop", {"don", "'t", " stop"}},
      {"你好world世界", {"你好", "world", "世界"}},
      {"ひらがな カタカナ", {"ひらがな", " ", "カタカナ"}},
      {"naïve e\u0301t", {"naïve", " e\u0301t"}},
      {"!!!\n\nend.\r\n", {"!!!\n\n", "end", ".\r\n"}},
      {"１２３４ Ⅷ", {"１２３", "４", " ", "Ⅷ"}},
      {"\ttab  ", {"\ttab", "  "}},
      {"😀 😀", {"😀", " 😀"}},
      {"", {}},
  };
  const std::vector<SplitStep> steps = DeepSeekSteps();
  for (const Golden& golden : goldens) {
    EXPECT_THAT(Split(steps, golden.text), ElementsAreArray(golden.pieces)) << golden.text;
  }
}

TEST(PreTokenizer, Behaviors) {
  const auto split = [](SplitBehavior behavior, bool invert) {
    return Split({{"-", behavior, invert}}, "-a--b-c");
  };
  EXPECT_THAT(split(SplitBehavior::kIsolated, false),
              ElementsAre("-", "a", "-", "-", "b", "-", "c"));
  EXPECT_THAT(split(SplitBehavior::kRemoved, false), ElementsAre("a", "b", "c"));
  EXPECT_THAT(split(SplitBehavior::kRemoved, true), ElementsAre("-", "-", "-", "-"));
  EXPECT_THAT(split(SplitBehavior::kMergedWithPrevious, false),
              ElementsAre("-", "a-", "-", "b-", "c"));
  EXPECT_THAT(split(SplitBehavior::kMergedWithNext, false), ElementsAre("-a", "-", "-b", "-c"));
  EXPECT_THAT(split(SplitBehavior::kContiguous, false), ElementsAre("-", "a", "--", "b", "-", "c"));
}

// Each piece is split as if nothing stood around it.
TEST(PreTokenizer, LookAheadEndsAtThePiece) {
  EXPECT_THAT(Split({{.pattern = "\\|"}, {.pattern = R"(\s+(?!\S)|\s+)"}}, "a  |b  c"),
              ElementsAre("a", "  ", "|", "b", " ", " ", "c"));
}

TEST(PreTokenizer, WhiteSpaceIsUnicodes) {
  // U+180E is not white space; U+0085 and U+3000 are.
  EXPECT_THAT(Split({{.pattern = R"(\s+)"}}, "a\u0085\u3000b\u180ec"),
              ElementsAre("a", "\u0085\u3000", "b\u180ec"));
  EXPECT_THAT(Split({{.pattern = R"([^\s]+)"}}, "a\u180eb c"), ElementsAre("a\u180eb", " ", "c"));
  EXPECT_THAT(Split({{.pattern = R"(\S+)"}}, "a\u180eb c"), ElementsAre("a\u180eb", " ", "c"));
}

TEST(PreTokenizer, QuotedTextMatchesItself) {
  const std::string odd = "a.b*[c]\\d(e)|é$";
  EXPECT_THAT(Split({{.pattern = Regex::Quote(odd)}}, "x" + odd + "y"), ElementsAre("x", odd, "y"));
}

TEST(PreTokenizer, RefusesWhatItWouldMisread) {
  for (const char* pattern : {"(", "[a", "x*", "a|", "[\\p{L}&&[^a]]", "[a[bc]]", "\\h+", "(?m).",
                              "(?s:.)", "\\C", "\\p{Nonsense}"}) {
    const absl::StatusOr<PreTokenizer> result = PreTokenizer::Create({{.pattern = pattern}});
    EXPECT_EQ(base::ReasonOf(result.status()), base::Reason::kBadTokenizer) << pattern;
  }
}

TEST(PreTokenizer, HardExpressionIsAnErrorNotAnAnswer) {
  const absl::StatusOr<PreTokenizer> hard = PreTokenizer::Create({{.pattern = "(a|aa)+[bd]"}});
  ASSERT_TRUE(hard.ok());
  MatchScratch scratch;
  std::vector<std::string_view> pieces;
  const std::string text(64, 'a');
  EXPECT_EQ(base::ReasonOf(hard->Split(text + "c", scratch, pieces)),
            base::Reason::kInvalidArgument);
  ASSERT_TRUE(hard->Split("aab", scratch, pieces).ok());  // the scratch still works
  EXPECT_THAT(pieces, ElementsAre("aab"));
}

TEST(PreTokenizer, LongRunsAreOnePiece) {
  const std::string letters(3'000'000, 'x');
  EXPECT_THAT(Split(DeepSeekSteps(), letters), ElementsAre(letters));
  const std::string spaces(1'000'000, ' ');
  EXPECT_THAT(Split(DeepSeekSteps(), spaces + " y"), ElementsAre(spaces, " y"));
}

}  // namespace
}  // namespace expertmesh::model
