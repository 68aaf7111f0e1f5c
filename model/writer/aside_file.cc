#include "model/writer/aside_file.h"

#include <unistd.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/writer/aside_directory.h"
#include "services/base/status.h"

namespace expertmesh::model {

namespace fs = std::filesystem;

absl::StatusOr<AsideFile> AsideFile::Create(const std::string& target, uint64_t bytes) {
  std::error_code error;
  if (fs::exists(target, error)) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat(target, " exists: choose another name"));
  }
  const fs::path folder = fs::absolute(target, error).parent_path();
  const fs::space_info space = fs::space(folder, error);
  if (error) return CannotWrite(target, error.message());
  if (space.available < bytes) {
    return CannotWrite(target,
                       absl::StrCat("needs ", bytes, " bytes, the disk has ", space.available));
  }
  AsideFile file(target, absl::StrCat(target, ".partial-", getpid()));
  file.stream_.open(file.path_, std::ios::binary | std::ios::trunc);
  if (!file.stream_) return CannotWrite(target, "the file system refuses");
  return file;
}

AsideFile::AsideFile(AsideFile&& other) noexcept
    : target_(std::move(other.target_)),
      path_(std::exchange(other.path_, {})),
      stream_(std::move(other.stream_)),
      size_(other.size_) {}

AsideFile::~AsideFile() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove(path_, ignored);
}

absl::Status AsideFile::Append(std::span<const std::byte> bytes) {
  stream_.write(reinterpret_cast<const char*>(bytes.data()),
                static_cast<std::streamsize>(bytes.size()));
  size_ += bytes.size();
  return stream_ ? absl::OkStatus() : CannotWrite(target_, "is the disk full?");
}

absl::Status AsideFile::Commit() {
  stream_.close();
  if (!stream_) return CannotWrite(target_, "is the disk full?");
  std::error_code error;
  fs::rename(path_, target_, error);
  if (error) return CannotWrite(target_, error.message());
  path_.clear();
  return absl::OkStatus();
}

}  // namespace expertmesh::model
