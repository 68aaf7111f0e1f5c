// The scanner by hand against the expressions of the file, run by PCRE2.
#include "model/tokenizer/deepseek_splitter.h"

#include <random>

#include "model/tokenizer/char_classes.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/utf8.h"
#include "tests/model/tokenizer/tokenizer_fixture.h"

namespace expertmesh::model {
namespace {

std::vector<SplitStep> DeepseekSteps() {
  std::vector<SplitStep> steps;
  for (const std::string_view pattern : kDeepseekSplits) {
    steps.push_back({.pattern = std::string(pattern)});
  }
  return steps;
}

class Reference {
 public:
  std::vector<std::string_view> Split(std::string_view text) {
    std::vector<std::string_view> pieces;
    EXPECT_TRUE(expressions_.Split(text, scratch_, pieces).ok());
    return pieces;
  }

 private:
  const PreTokenizer expressions_ = PreTokenizer::Create(DeepseekSteps(), true).value();
  MatchScratch scratch_;
};

std::vector<std::string_view> ByHand(std::string_view text) {
  std::vector<std::string_view> pieces;
  SplitDeepseek(text, pieces);
  return pieces;
}

// A few characters of every combination of flags that exists.
std::vector<char32_t> Representatives() {
  std::vector<int> seen(256, 0);
  std::vector<char32_t> found;
  const std::vector<uint8_t>& flags = CharClasses();
  for (char32_t c = 0; c < flags.size(); ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    if (seen[flags[c]]++ < 4) found.push_back(c);
  }
  for (const char32_t c : U" \r\n\t\u00a0\u3000\u200d\u0301\ufe0f😀1½一龥龦ぁ゠ー")
    found.push_back(c);
  return found;
}

TEST(DeepseekSplitter, KnowsItsOwnSteps) {
  EXPECT_TRUE(IsDeepseekSplit(DeepseekSteps()));
  EXPECT_TRUE(
      IsDeepseekSplit(ParseTokenizerJson(PresetTokenizerJson(kSmallVocab).value())->splits));
  EXPECT_FALSE(IsDeepseekSplit({}));
  for (size_t i = 0; i < 3; ++i) {
    std::vector<SplitStep> steps = DeepseekSteps();
    steps[i].invert = true;
    EXPECT_FALSE(IsDeepseekSplit(steps));
    steps[i] = {.pattern = steps[i].pattern, .behavior = SplitBehavior::kRemoved};
    EXPECT_FALSE(IsDeepseekSplit(steps));
    steps[i] = {.pattern = steps[i].pattern + "x"};
    EXPECT_FALSE(IsDeepseekSplit(steps));
  }
}

// Every string of up to three representatives.
TEST(DeepseekSplitter, EqualsTheExpressionsOnShortTexts) {
  Reference reference;
  const std::vector<char32_t> characters = Representatives();
  ASSERT_GT(characters.size(), 30u);
  for (const char32_t a : characters) {
    for (const char32_t b : characters) {
      for (const char32_t c : characters) {
        std::string text;
        AppendUtf8(a, text);
        AppendUtf8(b, text);
        if (c != 0) AppendUtf8(c, text);
        ASSERT_EQ(ByHand(text), reference.Split(text)) << text;
      }
    }
  }
}

TEST(DeepseekSplitter, EqualsTheExpressionsOnRandomTexts) {
  Reference reference;
  const std::vector<char32_t> characters = Representatives();
  std::mt19937 random(17);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (uint32_t n = random() % 40; n > 0; --n) {
      char32_t c = characters[random() % characters.size()];
      if (random() % 4 == 0) c = random() % 0xd800;
      if (random() % 16 == 0) c = 0xe000 + random() % (0x110000 - 0xe000);
      for (uint32_t again = 1 + (random() % 4 == 0 ? random() % 5 : 0); again > 0; --again) {
        AppendUtf8(c, text);
      }
    }
    ASSERT_EQ(ByHand(text), reference.Split(text)) << text;
  }
}

TEST(DeepseekSplitter, EqualsTheExpressionsOnEveryCharacter) {
  Reference reference;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text = "a";
    AppendUtf8(c, text);
    text += "b ";
    AppendUtf8(c, text);
    ASSERT_EQ(ByHand(text), reference.Split(text)) << static_cast<uint32_t>(c);
  }
}

}  // namespace
}  // namespace expertmesh::model
