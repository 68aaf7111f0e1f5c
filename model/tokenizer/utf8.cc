#include "model/tokenizer/utf8.h"

#include <cstring>

namespace expertmesh::model {
namespace {

// What may follow a first byte: total length, and the range of the second byte.
struct Lead {
  uint8_t length;
  uint8_t second_min;
  uint8_t second_max;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};  // no surrogates
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};  // up to U+10FFFF
  return {0, 0, 0};
}

}  // namespace

Utf8Char DecodeUtf8(std::string_view text) {
  Utf8Char result;
  if (text.empty()) return result;
  const auto first = static_cast<uint8_t>(text[0]);
  const Lead lead = LeadOf(first);
  result.length = 1;
  if (lead.length == 0) return result;
  char32_t value = lead.length == 1 ? first : first & (0x7f >> lead.length);
  for (uint8_t i = 1; i < lead.length; ++i) {
    if (i >= text.size()) {
      result.truncated = true;
      return result;
    }
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xbf;
    if (byte < low || byte > high) return result;
    value = (value << 6) | (byte & 0x3f);
    result.length = static_cast<uint8_t>(i + 1);
  }
  result.value = value;
  result.valid = true;
  return result;
}

void AppendUtf8(char32_t character, std::string& out) {
  if (character < 0x80) {
    out.push_back(static_cast<char>(character));
    return;
  }
  if (character < 0x800) {
    out.push_back(static_cast<char>(0xc0 | (character >> 6)));
  } else {
    if (character < 0x10000) {
      out.push_back(static_cast<char>(0xe0 | (character >> 12)));
    } else {
      out.push_back(static_cast<char>(0xf0 | (character >> 18)));
      out.push_back(static_cast<char>(0x80 | ((character >> 12) & 0x3f)));
    }
    out.push_back(static_cast<char>(0x80 | ((character >> 6) & 0x3f)));
  }
  out.push_back(static_cast<char>(0x80 | (character & 0x3f)));
}

std::optional<size_t> FindInvalidUtf8(std::string_view text) {
  for (size_t position = 0; position < text.size();) {
    if (static_cast<uint8_t>(text[position]) < 0x80) {
      ++position;
      // Eight ASCII bytes at once.
      for (uint64_t block = 0; position + sizeof(block) <= text.size(); position += sizeof(block)) {
        std::memcpy(&block, text.data() + position, sizeof(block));
        if ((block & 0x8080808080808080) != 0) break;
      }
      continue;
    }
    const Utf8Char character = DecodeUtf8(text.substr(position));
    if (!character.valid) return position;
    position += character.length;
  }
  return std::nullopt;
}

bool IsWhitespace(char32_t character) {
  return (character >= 0x09 && character <= 0x0d) || character == 0x20 || character == 0x85 ||
         character == 0xa0 || character == 0x1680 || (character >= 0x2000 && character <= 0x200a) ||
         character == 0x2028 || character == 0x2029 || character == 0x202f || character == 0x205f ||
         character == 0x3000;
}

}  // namespace expertmesh::model
