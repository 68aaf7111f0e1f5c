// Random `deepseek_v3` directories for tests: config.json and model.safetensors, no tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace expertmesh::test_support {

/// A few hundred thousand parameters with awkward sizes: nothing is a multiple of sixteen, 24
/// experts in 4 gate groups, the root of the combine tree is wider than the experts.
model::Config AwkwardConfig();
/// The sizes of the preset `tiny-v3` (docs/model-family.md §6).
model::Config TinyV3Config();

/// Writes the directory (created if absent): normal weights by docs/model-family.md §6, F32 or BF16
/// by config.torch_dtype. The same seed gives the same bytes.
void WriteTinyModel(const std::string& directory, const model::Config& config, uint64_t seed = 1);

/// Token ids below vocab_size, the same for the same seed.
std::vector<uint32_t> RandomTokens(const model::Config& config, size_t count, uint64_t seed);

}  // namespace expertmesh::test_support
