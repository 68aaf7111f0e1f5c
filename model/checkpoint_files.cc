#include "model/checkpoint_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace expertmesh::model {
namespace {

class FileDescriptor {
 public:
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  explicit FileDescriptor(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

struct FileFacts {
  FileStamp stamp;
  FileIdentity identity;
};

absl::StatusOr<FileFacts> FactsOf(const FileDescriptor& file, const std::string& path,
                                  base::Reason reason) {
  struct stat info {};
  if (file.get() < 0 || fstat(file.get(), &info) != 0) {
    return base::Error(reason, absl::StrCat(path, ": cannot be opened: ", std::strerror(errno)));
  }
  if (!S_ISREG(info.st_mode)) return base::Error(reason, path + ": not a regular file");
  return FileFacts{{static_cast<uint64_t>(info.st_size),
                    info.st_mtim.tv_sec * int64_t{1000000000} + info.st_mtim.tv_nsec},
                   {info.st_dev, info.st_ino}};
}

}  // namespace

std::string JoinPath(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.empty() && path.back() != '/') path += '/';
  path += name;
  return path;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes,
                                          base::Reason reason) {
  const FileDescriptor file(path);
  EM_ASSIGN_OR_RETURN(const FileFacts facts, FactsOf(file, path, reason));
  const FileStamp& stamp = facts.stamp;
  if (stamp.bytes > max_bytes) {
    return base::Error(reason, absl::StrCat(path, ": ", stamp.bytes, " bytes, at most ", max_bytes,
                                            " are allowed"));
  }
  std::string text(stamp.bytes, '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = read(file.get(), text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return base::Error(reason, absl::StrCat(path, ": cannot be read to its end"));
    }
    filled += static_cast<size_t>(count);
  }
  return text;
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  constexpr auto kReason = base::Reason::kBadCheckpoint;
  const FileDescriptor file(path);
  EM_ASSIGN_OR_RETURN(const FileFacts facts, FactsOf(file, path, kReason));
  const FileStamp& stamp = facts.stamp;
  if (stamp.bytes == 0) return base::Error(kReason, path + ": the file is empty");
  void* mapped = mmap(nullptr, stamp.bytes, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (mapped == MAP_FAILED) {
    return base::Error(kReason, absl::StrCat(path, ": cannot be mapped: ", std::strerror(errno)));
  }
  return std::unique_ptr<MappedFile>(
      new MappedFile({static_cast<const std::byte*>(mapped), stamp.bytes}, stamp, facts.identity));
}

MappedFile::~MappedFile() { munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

void MappedFile::Release(std::span<const std::byte> part) const {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t begin = static_cast<size_t>(part.data() - bytes_.data()) / page * page;
  const size_t end = static_cast<size_t>(part.data() - bytes_.data()) + part.size();
  auto* base = const_cast<std::byte*>(bytes_.data());
  madvise(base + begin, end - begin, MADV_DONTNEED);  // advice: a refusal changes nothing
}

}  // namespace expertmesh::model
