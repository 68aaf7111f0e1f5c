#include "model/tokenizer/byte_map.h"

#include <array>

#include "model/tokenizer/utf8.h"

namespace expertmesh::model {
namespace {

// Bytes that stand for themselves: visible ASCII, and Latin-1 without the soft hyphen.
constexpr bool IsPlain(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

// The other 68 bytes take U+0100, U+0101, … in ascending order.
struct Tables {
  std::array<uint16_t, 256> to_char;
  std::array<int16_t, 512> to_byte;  // −1: none
};

constexpr Tables MakeTables() {
  Tables tables{};
  for (int16_t& byte : tables.to_byte) byte = -1;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const int character = IsPlain(byte) ? byte : next++;
    tables.to_char[static_cast<size_t>(byte)] = static_cast<uint16_t>(character);
    tables.to_byte[static_cast<size_t>(character)] = static_cast<int16_t>(byte);
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

}  // namespace

char32_t ByteToChar(uint8_t byte) { return kTables.to_char[byte]; }

std::optional<uint8_t> CharToByte(char32_t character) {
  if (character >= kTables.to_byte.size() || kTables.to_byte[character] < 0) return std::nullopt;
  return static_cast<uint8_t>(kTables.to_byte[character]);
}

std::string SpellBytes(std::string_view bytes) {
  std::string spelling;
  spelling.reserve(bytes.size() * 2);
  for (const char byte : bytes) AppendUtf8(ByteToChar(static_cast<uint8_t>(byte)), spelling);
  return spelling;
}

std::optional<std::string> UnspellBytes(std::string_view spelling) {
  std::string bytes;
  bytes.reserve(spelling.size());
  for (size_t position = 0; position < spelling.size();) {
    const Utf8Char character = DecodeUtf8(spelling.substr(position));
    if (!character.valid) return std::nullopt;
    const std::optional<uint8_t> byte = CharToByte(character.value);
    if (!byte.has_value()) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    position += character.length;
  }
  return bytes;
}

}  // namespace expertmesh::model
