// A file that is written aside and appears under its name only when it is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// `TARGET.partial-PID` until Commit; removed if Commit is never reached. One thread.
class AsideFile {
 public:
  /// Checks that the disk has room for `bytes`. Errors are kInvalidArgument: the target exists, or
  /// the file system refuses.
  static absl::StatusOr<AsideFile> Create(const std::string& target, uint64_t bytes);
  AsideFile(AsideFile&& other) noexcept;
  AsideFile& operator=(AsideFile&&) = delete;
  ~AsideFile();

  absl::Status Append(std::span<const std::byte> bytes);
  /// Bytes appended so far.
  uint64_t size() const { return size_; }
  /// Closes it and renames it to the target. Once.
  absl::Status Commit();

 private:
  AsideFile(std::string target, std::string path)
      : target_(std::move(target)), path_(std::move(path)) {}

  std::string target_;
  std::string path_;  // empty once renamed or moved from
  std::ofstream stream_;
  uint64_t size_ = 0;
};

}  // namespace expertmesh::model
