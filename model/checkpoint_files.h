// Files of a model directory: small ones read whole, weights memory-mapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "services/base/status.h"

namespace expertmesh::model {

std::string JoinPath(std::string_view directory, std::string_view name);

/// The bytes of a regular file of at most max_bytes. Errors carry `reason` and begin with the path.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes,
                                          base::Reason reason);

/// Size and time of last change: what decides whether a cached checksum still holds.
struct FileStamp {
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

/// Which file of this host it is, whatever its path.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

/// A whole regular file, mapped read-only; unmapped on destruction. Immutable, thread-safe.
/// Truncating the file while it is mapped is outside its contract (the kernel then raises SIGBUS).
class MappedFile {
 public:
  /// Errors are kBadCheckpoint and begin with the path; an empty file is one.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const FileStamp& stamp() const { return stamp_; }
  const FileIdentity& identity() const { return identity_; }
  /// Drops the pages that `part` touches from this process; they come back when read again.
  void Release(std::span<const std::byte> part) const;

 private:
  MappedFile(std::span<const std::byte> bytes, FileStamp stamp, FileIdentity identity)
      : bytes_(bytes), stamp_(stamp), identity_(identity) {}

  std::span<const std::byte> bytes_;
  FileStamp stamp_;
  FileIdentity identity_;
};

}  // namespace expertmesh::model
