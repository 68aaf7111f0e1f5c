// Which tensor goes where in which safetensors file (docs/formats.md §7.1): the inverse of
// ParseSafetensorsHeader.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/checkpoint.h"

namespace expertmesh::model {

/// A tensor to write.
struct StoredTensor {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<uint64_t> shape;

  uint64_t bytes() const;
};

/// One file to write: `header` (8 bytes of length included), then its tensors in this order, back
/// to back.
struct FileLayout {
  std::string name;             // model.safetensors or model-00001-of-00003.safetensors
  std::vector<size_t> tensors;  // indices into the tensors, ascending
  std::string header;
  uint64_t data_bytes = 0;
};

uint64_t ElementCount(const std::vector<uint64_t>& shape);

/// Fills files in order of the tensors; a file is closed when the next tensor would take it over
/// shard_bytes. 0 = no such limit. A tensor larger than shard_bytes gets a file of its own. Tables
/// of the memory share no file with other tensors, so that they can be deleted once a store has
/// them.
std::vector<FileLayout> PlanFiles(const std::vector<StoredTensor>& tensors, uint64_t shard_bytes);

/// model.safetensors.index.json for these files.
std::string IndexJson(const std::vector<StoredTensor>& tensors,
                      const std::vector<FileLayout>& files);

}  // namespace expertmesh::model
