// What a full disk looks like, before and while files are written.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace expertmesh::engram_store {

/// kDiskFull if the file system of `directory` has fewer than `needed` bytes free for us; `what`
/// begins the message, which says how many are needed and free.
absl::Status CheckRoom(const std::string& directory, uint64_t needed, const std::string& what);

/// The error of a write that failed with `error_number`: kDiskFull as above where no room was the
/// cause, else kInternal with the system's words.
absl::Status WriteError(int error_number, const std::string& path, uint64_t needed,
                        const std::string& what);

}  // namespace expertmesh::engram_store
