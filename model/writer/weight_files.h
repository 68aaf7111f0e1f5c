// Streams tensors into the safetensors files of a directory, in the order of their layout.
#pragma once

#include <cstddef>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/writer/safetensors_layout.h"

namespace expertmesh::model {

/// One pass, one thread. Nothing is kept in memory.
class WeightFiles {
 public:
  /// Plans the files and checks that the disk has room for them. `tensors` outlives this.
  static absl::StatusOr<WeightFiles> Create(const std::string& directory,
                                            const std::vector<StoredTensor>& tensors,
                                            uint64_t shard_bytes);

  /// Appends bytes of a tensor; tensors come in ascending order, each whole.
  absl::Status Append(size_t tensor, std::span<const std::byte> bytes);
  /// Closes the last file; writes the index if there are shards.
  absl::Status Finish();

  uint64_t total_bytes() const { return total_bytes_; }

 private:
  WeightFiles(std::string directory, const std::vector<StoredTensor>& tensors,
              uint64_t shard_bytes);
  void Open(size_t file);
  absl::Status Close();

  std::string directory_;
  const std::vector<StoredTensor>* tensors_;
  std::vector<FileLayout> layouts_;
  bool is_sharded_;
  uint64_t total_bytes_ = 0;
  size_t next_file_ = 0;  // to open
  std::ofstream stream_;
};

}  // namespace expertmesh::model
