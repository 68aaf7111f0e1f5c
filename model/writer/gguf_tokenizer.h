// The tokenizer of a model directory as metadata of a GGUF file.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "model/config.h"
#include "model/writer/gguf_header.h"

namespace expertmesh::model {

/// Adds tokens, merges and the ids of BOS, EOS and PAD, as llama.cpp reads byte-level BPE
/// (`tokenizer.ggml.*`); a chat template too if there is one. Ids without a token are named
/// "[PADn]" and marked unused. Errors: kBadTokenizer; kUnsupported for a pre-tokenizer other than
/// DeepSeek's (docs/formats.md §8.1), which the format would have to know by name.
absl::Status AddGgufTokenizer(const std::string& directory, const Config& config,
                              GgufMetadata& metadata);

}  // namespace expertmesh::model
