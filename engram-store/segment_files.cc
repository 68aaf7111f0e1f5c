#include "engram-store/segment_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engram-store/disk_space.h"
#include "services/base/status.h"

namespace expertmesh::engram_store {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBufferBytes = 1 << 20;

// A file that is synced before it counts.
class OutputFile {
 public:
  OutputFile(std::string path, uint64_t needed, std::string what)
      : path_(std::move(path)), needed_(needed), what_(std::move(what)) {}
  ~OutputFile() {
    if (fd_ >= 0) close(fd_);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  absl::Status Open() {
    fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    buffer_.reserve(kBufferBytes);
    return fd_ >= 0 ? absl::OkStatus() : WriteError(errno, path_, needed_, what_);
  }

  absl::Status Append(std::span<const std::byte> bytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return buffer_.size() < kBufferBytes ? absl::OkStatus() : Flush();
  }

  absl::Status Close() {
    EM_RETURN_IF_ERROR(Flush());
    const bool synced = fsync(fd_) == 0;
    const int error = errno;
    close(std::exchange(fd_, -1));
    return synced ? absl::OkStatus() : WriteError(error, path_, needed_, what_);
  }

 private:
  absl::Status Flush() {
    for (size_t at = 0; at < buffer_.size();) {
      const ssize_t written = write(fd_, buffer_.data() + at, buffer_.size() - at);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return WriteError(errno, path_, needed_, what_);
      at += static_cast<size_t>(written);
    }
    buffer_.clear();
    return absl::OkStatus();
  }

  const std::string path_;
  const uint64_t needed_;
  const std::string what_;
  int fd_ = -1;
  std::vector<std::byte> buffer_;
};

absl::Status SyncFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return WriteError(errno, path, 0, "syncing a folder");
  const bool synced = fsync(fd) == 0;
  const int error = errno;
  close(fd);
  return synced ? absl::OkStatus() : WriteError(error, path, 0, "syncing a folder");
}

// Removes a folder unless it was kept.
struct PartialFolder {
  std::string path;
  ~PartialFolder() {
    std::error_code error;
    if (!path.empty()) fs::remove_all(path, error);
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<SegmentTable>> SegmentTable::Open(const std::string& path,
                                                                 const VersionRecord& version,
                                                                 const TableShape::Layer& layer) {
  EM_ASSIGN_OR_RETURN(auto segment, model::MappedSegment::Open(path));
  const model::SegmentHeader wanted{VersionFromName(version.version), layer.layer,
                                    version.shape.format, version.shape.width, layer.rows};
  if (segment->header() != wanted) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat(path, ": it is of another version, layer or shape"));
  }
  return std::unique_ptr<SegmentTable>(new SegmentTable(std::move(segment)));
}

absl::Status SegmentTable::Read(std::span<const uint64_t> ids, std::byte* out) const {
  std::vector<size_t> damaged;
  segment_->Read(ids, ids.size(), out, damaged);
  if (damaged.empty()) return absl::OkStatus();
  return base::Error(base::Reason::kEngramChecksum,
                     absl::StrCat(segment_->path(), ": layer ", segment_->header().layer, ", row ",
                                  ids[damaged.front()],
                                  " does not match its checksum; stop the store, delete that "
                                  "folder and start it again"));
}

SegmentFolder::SegmentFolder(const std::string& data_directory)
    : root_(data_directory + "/segments") {}

std::string SegmentFolder::PathOf(const std::string& version, uint32_t layer) const {
  return Folder(version) + absl::StrFormat("/layer-%05d.seg", layer);
}

absl::StatusOr<SegmentFolder::Tables> SegmentFolder::Open(const VersionRecord& version) const {
  Tables tables;
  for (const TableShape::Layer& layer : version.shape.layers) {
    EM_ASSIGN_OR_RETURN(auto table,
                        SegmentTable::Open(PathOf(version.version, layer.layer), version, layer));
    tables.emplace(layer.layer, std::move(table));
  }
  return tables;
}

absl::Status SegmentFolder::Write(const VersionRecord& version, const Source& source) const {
  const TableShape& shape = version.shape;
  const std::string what =
      absl::StrCat("publishing version ", absl::string_view(version.version).substr(0, 12));
  const uint64_t needed = shape.total_bytes() + shape.layers.size() * model::kSegmentHeaderBytes;
  std::error_code error;
  fs::create_directories(root_, error);
  if (error) return WriteError(error.value(), root_, needed, what);
  EM_RETURN_IF_ERROR(CheckRoom(root_, needed, what));
  PartialFolder partial{absl::StrCat(Folder(version.version), ".partial-", getpid())};
  fs::remove_all(partial.path, error);
  fs::create_directory(partial.path, error);
  if (error) return WriteError(error.value(), partial.path, needed, what);
  for (const TableShape::Layer& layer : shape.layers) {
    const std::string name = fs::path(PathOf(version.version, layer.layer)).filename();
    OutputFile file(partial.path + "/" + name, needed, what);
    EM_RETURN_IF_ERROR(file.Open());
    EM_RETURN_IF_ERROR(file.Append(model::WriteSegmentHeader(
        {VersionFromName(version.version), layer.layer, shape.format, shape.width, layer.rows})));
    EM_RETURN_IF_ERROR(
        source(layer.layer, [&](uint64_t /*block*/, std::span<const std::byte> records) {
          return file.Append(records);
        }));
    EM_RETURN_IF_ERROR(file.Close());
  }
  EM_RETURN_IF_ERROR(SyncFolder(partial.path));
  Remove(version.version);
  fs::rename(partial.path, Folder(version.version), error);
  if (error) return WriteError(error.value(), partial.path, needed, what);
  partial.path.clear();
  return SyncFolder(root_);
}

void SegmentFolder::Remove(const std::string& version) const {
  std::error_code error;
  fs::remove_all(Folder(version), error);
}

void SegmentFolder::CleanUp(const std::set<std::string>& published) const {
  std::error_code error;
  std::vector<fs::path> gone;
  for (const fs::directory_entry& entry : fs::directory_iterator(root_, error)) {
    if (!published.contains(entry.path().filename().string())) gone.push_back(entry.path());
  }
  for (const fs::path& path : gone) fs::remove_all(path, error);
}

}  // namespace expertmesh::engram_store
