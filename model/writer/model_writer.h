// A complete model directory with random weights: what `expertmesh model init` makes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "model/writer/presets.h"

namespace expertmesh::model {

struct WriteOptions {
  std::string directory;  // must not exist, or be empty
  uint64_t seed = 0;
  uint64_t shard_bytes = 0;  // 0 = one model.safetensors, else indexed shards of at most this size
  int threads = 1;
  /// Told now and then, on the calling thread.
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> progress;
  /// Asked now and then; once it says yes, nothing stays behind and the status is kCancelled.
  std::function<bool()> cancelled;
};

/// Writes config.json, the weights, tokenizer and generation_config.json into a directory beside
/// the wanted one and renames it at the end, so that a failed or cancelled run leaves nothing. The
/// bytes are a function of (preset, seed, shard_bytes). Stored as config.torch_dtype, F32 where
/// TensorSpec says so, tables of the memory as the preset says. kInvalidArgument for a preset on
/// paper.
absl::Status WriteModel(const Preset& preset, const WriteOptions& options);

}  // namespace expertmesh::model
