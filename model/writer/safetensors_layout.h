// Which tensor goes where in which safetensors file (docs/formats.md §7.1): the inverse of
// ParseSafetensorsHeader.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/checkpoint.h"

namespace expertmesh::model {

/// One file to write: `header` (8 bytes of length included), then its tensors in this order, back
/// to back.
struct FileLayout {
  std::string name;             // model.safetensors or model-00001-of-00003.safetensors
  std::vector<size_t> tensors;  // indices into the specs
  std::string header;
  uint64_t data_bytes = 0;
};

/// The stored type of a tensor in a model whose other tensors are of `type`.
TensorType StoredType(const TensorSpec& spec, TensorType type);
uint64_t ElementCount(const TensorSpec& spec);

/// Fills files in order of the specs; a file is closed when the next tensor would take it over
/// shard_bytes. 0 = one file. A tensor larger than shard_bytes gets a file of its own.
std::vector<FileLayout> PlanFiles(const std::vector<TensorSpec>& specs, TensorType type,
                                  uint64_t shard_bytes);

/// model.safetensors.index.json for these files.
std::string IndexJson(const std::vector<TensorSpec>& specs, const std::vector<FileLayout>& files);

}  // namespace expertmesh::model
