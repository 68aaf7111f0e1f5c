// UTF-8 as the tokenizer needs it: checking input, and turning output bytes into text that is
// always valid. Ill-formed input is replaced by maximal subparts (Unicode 14, §3.9): one U+FFFD for
// each longest prefix of a character, one for each byte that can start none. Pure, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace expertmesh::model {

struct Utf8Char {
  char32_t value = 0xFFFD;
  uint8_t length = 0;  // bytes of the character, or of the ill-formed subpart; 0 for empty input
  bool valid = false;
  bool truncated = false;  // not valid, but more bytes could make it so
};

/// The character at the start of the text.
Utf8Char DecodeUtf8(std::string_view text);

/// Appends a character; surrogates and values above U+10FFFF are not allowed.
void AppendUtf8(char32_t character, std::string& out);

/// The offset of the first byte that is not well-formed UTF-8; nullopt if all is.
std::optional<size_t> FindInvalidUtf8(std::string_view text);

/// Unicode's White_Space property.
bool IsWhitespace(char32_t character);

}  // namespace expertmesh::model
