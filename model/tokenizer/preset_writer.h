// The tokenizer that `model init` puts beside random weights (docs/model-family.md §9): DeepSeek's
// form and chat tokens, with merges learned from a small built-in word list. The same bytes for the
// same vocabulary size, on every machine.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace expertmesh::model {

/// Control and chat tokens and the 256 bytes: the smallest vocabulary a preset can have.
inline constexpr uint32_t kPresetMinVocab = 276;

/// The text of tokenizer.json. kInvalidArgument below kPresetMinVocab or above 2^20.
absl::StatusOr<std::string> PresetTokenizerJson(uint32_t vocab_size);

/// Writes tokenizer.json and tokenizer_config.json, and special_tokens_map.json if there is none.
/// The directory exists. kInvalidArgument naming the file that could not be written.
absl::Status WritePresetTokenizer(const std::string& directory, uint32_t vocab_size);

}  // namespace expertmesh::model
