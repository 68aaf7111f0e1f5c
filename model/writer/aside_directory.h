// A directory that is written aside and appears under its name only when it is whole.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// `TARGET.partial-PID` until Commit; removed with all that is in it if Commit is never reached.
class AsideDirectory {
 public:
  /// Errors are kInvalidArgument: the target exists and is no empty directory, or the file system
  /// refuses.
  static absl::StatusOr<AsideDirectory> Create(const std::string& target);
  AsideDirectory(AsideDirectory&& other) noexcept;
  AsideDirectory& operator=(AsideDirectory&&) = delete;
  ~AsideDirectory();

  const std::string& path() const { return path_; }
  /// Renames it to the target, replacing an empty directory. Once.
  absl::Status Commit();

 private:
  AsideDirectory(std::string target, std::string path)
      : target_(std::move(target)), path_(std::move(path)) {}

  std::string target_;
  std::string path_;  // empty once renamed or moved from
};

/// kInvalidArgument "cannot write PATH: WHY".
absl::Status CannotWrite(const std::string& path, const std::string& why);

/// Writes a small file whole.
absl::Status WriteTextFile(const std::string& path, const std::string& text);

}  // namespace expertmesh::model
