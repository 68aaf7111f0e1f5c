// The GPT-2 map between bytes and printable Unicode characters (docs/formats.md §8.1):
// tokenizer.json spells the bytes of a token with it, e.g. "Ġthe" for " the". Pure functions, any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace expertmesh::model {

/// The character that stands for a byte: itself if printable, else U+0100 + a running number.
char32_t ByteToChar(uint8_t byte);
/// The inverse; nullopt for a character that stands for no byte.
std::optional<uint8_t> CharToByte(char32_t character);

/// Bytes → the spelling in tokenizer.json (valid UTF-8).
std::string SpellBytes(std::string_view bytes);
/// Spelling → bytes; nullopt if a character stands for no byte or the text is not UTF-8.
std::optional<std::string> UnspellBytes(std::string_view spelling);

}  // namespace expertmesh::model
