#include "model/writer/aside_directory.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {

namespace fs = std::filesystem;

absl::Status CannotWrite(const std::string& path, const std::string& why) {
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("cannot write ", path, ": ", why));
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  return file ? absl::OkStatus() : CannotWrite(path, "is the disk full?");
}

absl::StatusOr<AsideDirectory> AsideDirectory::Create(const std::string& target_name) {
  std::error_code error;
  fs::path target = fs::absolute(target_name, error).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  if (fs::exists(target, error) &&
      !(fs::is_directory(target, error) && fs::is_empty(target, error))) {
    return base::Error(
        base::Reason::kInvalidArgument,
        absl::StrCat(target.string(), " exists and is not an empty directory: choose another one"));
  }
  const fs::path aside = absl::StrCat(target.string(), ".partial-", getpid());
  fs::remove_all(aside, error);  // left by a killed process that had our number
  fs::create_directories(aside, error);
  if (error) return CannotWrite(aside.string(), error.message());
  return AsideDirectory(target.string(), aside.string());
}

AsideDirectory::AsideDirectory(AsideDirectory&& other) noexcept
    : target_(std::move(other.target_)), path_(std::exchange(other.path_, {})) {}

AsideDirectory::~AsideDirectory() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

absl::Status AsideDirectory::Commit() {
  std::error_code error;
  fs::rename(path_, target_, error);
  if (error) return CannotWrite(target_, error.message());
  path_.clear();
  return absl::OkStatus();
}

}  // namespace expertmesh::model
