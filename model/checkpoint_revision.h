// The revision of a model directory and the file that caches its costly half.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"

namespace expertmesh::model {

/// One weight file of an open checkpoint.
struct ShardFile {
  std::string name;  // relative to the directory
  std::unique_ptr<MappedFile> mapped;
};

/// Name of the cache beside the weights.
inline constexpr std::string_view kRevisionFile = "expertmesh-revision.json";

/// SHA-256, in hex, over (format name, config.json, digest of the weights, options), each prefixed
/// with its length. The digest of the weights covers name, type, shape and CRC32C of every tensor
/// but the memory's tables, in ascending order of names, so it does not depend on how they are cut
/// into files. It is taken from kRevisionFile if that names the same files with the same sizes and
/// times and is whole; else computed (all cores, at most kRevisionThreadsMax) and written there
/// through a temporary file and a rename, silently skipped where the directory is read-only.
absl::StatusOr<std::string> ComputeRevision(const Checkpoint& checkpoint,
                                            const std::vector<ShardFile>& shards,
                                            std::string_view options);
inline constexpr int kRevisionThreadsMax = 8;

}  // namespace expertmesh::model
