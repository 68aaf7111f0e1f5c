#include "gateway/core/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace expertmesh::gateway {
namespace {

struct Cut {
  std::string text;
  bool stopped;
};

Cut Feed(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  std::string text;
  for (const std::string& piece : pieces) text += matcher.Push(piece);
  text += matcher.Flush();
  return {text, matcher.stopped()};
}

TEST(StopMatcher, CutsBeforeTheStopString) {
  struct Case {
    std::vector<std::string> stops, pieces;
    std::string text;
    bool stopped;
  };
  const Case cases[] = {
      {{}, {"a", "b"}, "ab", false},
      {{"x"}, {"ab", "xc"}, "ab", true},
      {{"END"}, {"abE", "N", "Dcd", "e"}, "ab", true},
      {{"END"}, {"abE", "N", "cd"}, "abENcd", false},
      {{"END"}, {"EN"}, "EN", false},
      {{"aab"}, {"aa", "a", "b"}, "a", true},
      {{"long stop", "st"}, {"a long ", "stop"}, "a long ", true},
      {{"\n\n"}, {"a\n", "b\n", "\nc"}, "a\nb", true},
      {{"é"}, {"caf", "é!"}, "caf", true},
  };
  for (const Case& c : cases) {
    const Cut cut = Feed(c.stops, c.pieces);
    EXPECT_EQ(cut.text, c.text);
    EXPECT_EQ(cut.stopped, c.stopped) << c.text;
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatCouldBecomeAStop) {
  StopMatcher matcher({"stop"});
  EXPECT_EQ(matcher.Push("abc st"), "abc ");
  EXPECT_EQ(matcher.Push("a"), "sta");
  EXPECT_EQ(matcher.Push("sto"), "");
  EXPECT_EQ(matcher.Flush(), "sto");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.Push("stop"), "");
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, HowTheTextIsCutDoesNotMatter) {
  std::mt19937 random(7);
  const auto word = [&](size_t length) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text += static_cast<char>('a' + random() % 3);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = random() % 4; n > 0; --n) stops.push_back(word(1 + random() % 4));
    const std::string text = word(random() % 20);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + random() % 5;
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    const Cut whole = Feed(stops, {text});
    const Cut cut = Feed(stops, pieces);
    ASSERT_EQ(cut.text, whole.text) << text;
    ASSERT_EQ(cut.stopped, whole.stopped) << text;
  }
}

}  // namespace
}  // namespace expertmesh::gateway
