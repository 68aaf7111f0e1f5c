// The three splits of the DeepSeek pre-tokenizer in one pass by hand (docs/formats.md §8.1). What
// PCRE2 makes of the same expressions is the reference, and the tests compare the two.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "model/tokenizer/tokenizer_spec.h"

namespace expertmesh::model {

/// The expressions, as the published tokenizer.json writes them.
inline constexpr std::array<std::string_view, 3> kDeepseekSplits = {
    R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|"
    "\\s+(?!\\S)|\\s+"};

/// True if these steps are exactly the ones that the splitter does.
bool IsDeepseekSplit(const std::vector<SplitStep>& steps);

/// Replaces `pieces` by the non-empty pieces of valid UTF-8 text, in order, as views into it. Any
/// thread; time in proportion to the text.
void SplitDeepseek(std::string_view text, std::vector<std::string_view>& pieces);

}  // namespace expertmesh::model
