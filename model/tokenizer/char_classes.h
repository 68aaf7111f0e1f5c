// What the splits of the DeepSeek pre-tokenizer ask of a character, as one byte of flags
// (docs/formats.md §8.1). The Unicode categories are read from PCRE2, once per process, so that
// the scanner and the expressions cannot disagree about a character.
#pragma once

#include <cstdint>
#include <vector>

namespace expertmesh::model {

namespace char_class {
inline constexpr uint8_t kWord = 1;         // \p{L} or \p{M}
inline constexpr uint8_t kSign = 2;         // \p{P} or \p{S}
inline constexpr uint8_t kNumber = 4;       // \p{N}
inline constexpr uint8_t kSpace = 8;        // White_Space
inline constexpr uint8_t kCjk = 16;         // [一-龥぀-ゟ゠-ヿ]
inline constexpr uint8_t kNewline = 32;     // \r or \n
inline constexpr uint8_t kAsciiWord = 64;   // [A-Za-z]
inline constexpr uint8_t kAsciiSign = 128;  // the 32 visible ASCII characters that are no letter
                                            // and no digit
}  // namespace char_class

/// [0x110000] flags by code point. Any thread; the first call takes some 10 ms.
const std::vector<uint8_t>& CharClasses();

}  // namespace expertmesh::model
