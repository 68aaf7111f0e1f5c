#include "model/tokenizer/utf8.h"

#include <set>

#include "gtest/gtest.h"
#include "model/tokenizer/byte_map.h"

namespace expertmesh::model {
namespace {

TEST(Utf8, EveryCharacterDecodesToItself) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(c, text);
    const Utf8Char decoded = DecodeUtf8(text);
    ASSERT_TRUE(decoded.valid && decoded.value == c && decoded.length == text.size())
        << uint32_t{c};
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const Utf8Char part = DecodeUtf8(std::string_view(text).substr(0, cut));
      ASSERT_TRUE(!part.valid && part.truncated && part.length == cut) << uint32_t{c};
    }
  }
}

struct IllFormed {
  std::string text;
  size_t offset;   // first bad byte
  uint8_t length;  // of the maximal subpart there
};

TEST(Utf8, FindsTheFirstIllFormedByte) {
  const IllFormed cases[] = {
      {"\x80", 0, 1},              // continuation first
      {"a\xc0\xaf", 1, 1},         // overlong
      {"\xe0\x80\x80", 0, 1},      // overlong
      {"ab\xed\xa0\x80", 2, 1},    // surrogate
      {"\xf4\x90\x80\x80", 0, 1},  // above U+10FFFF
      {"\xf5", 0, 1},              // no such first byte
      {"\xe2\x82", 0, 2},          // cut short
      {"\xf0\x9f\x98", 0, 3},      // cut short
      {"é\xf0\x9f\x98x", 2, 3},    // cut short, then text
  };
  for (const IllFormed& test : cases) {
    ASSERT_EQ(FindInvalidUtf8(test.text), test.offset) << test.text;
    const Utf8Char part = DecodeUtf8(std::string_view(test.text).substr(test.offset));
    EXPECT_FALSE(part.valid);
    EXPECT_EQ(part.length, test.length) << test.text;
  }
  EXPECT_EQ(FindInvalidUtf8("plain, é, 你, 😀"), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8(""), std::nullopt);
}

TEST(ByteMap, IsABijectionOntoPrintableCharacters) {
  std::set<char32_t> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = ByteToChar(static_cast<uint8_t>(byte));
    EXPECT_TRUE(characters.insert(character).second);
    EXPECT_EQ(CharToByte(character), static_cast<uint8_t>(byte));
    EXPECT_FALSE(IsWhitespace(character));
  }
  EXPECT_EQ(CharToByte(0x144), std::nullopt);
  EXPECT_EQ(CharToByte(U' '), std::nullopt);
  EXPECT_EQ(CharToByte(0xFF5C), std::nullopt);
}

TEST(ByteMap, SpellsAsGpt2Does) {
  EXPECT_EQ(SpellBytes(" the\n"), "ĠtheĊ");
  EXPECT_EQ(SpellBytes("你"), "ä½ł");
  EXPECT_EQ(UnspellBytes("ĠtheĊ"), " the\n");
  EXPECT_EQ(UnspellBytes("<｜User｜>"), std::nullopt);
  EXPECT_EQ(UnspellBytes("\xff"), std::nullopt);
}

}  // namespace
}  // namespace expertmesh::model
