#include "model/packed_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <optional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint_files.h"
#include "model/packed_header.h"
#include "services/base/crc32c.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {
namespace {

constexpr int kThreadsMax = 8;

class File {
 public:
  File(const std::string& path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  bool ok() const { return fd_ >= 0; }

  // Size of a regular file, else 0.
  uint64_t bytes() const {
    struct stat info = {};
    if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) return 0;
    return static_cast<uint64_t>(info.st_size);
  }
  bool Read(std::span<std::byte> to, uint64_t at) const {
    while (!to.empty()) {
      const ssize_t n = pread(fd_, to.data(), to.size(), static_cast<off_t>(at));
      if (n <= 0) return false;
      to = to.subspan(static_cast<size_t>(n));
      at += static_cast<uint64_t>(n);
    }
    return true;
  }
  bool Write(std::span<const std::byte> from) const {
    while (!from.empty()) {
      const ssize_t n = write(fd_, from.data(), from.size());
      if (n <= 0) return false;
      from = from.subspan(static_cast<size_t>(n));
    }
    return true;
  }

 private:
  int fd_;
};

std::span<std::byte> ChunkOf(std::span<std::byte> weights, size_t i) {
  const size_t begin = i * size_t{kPackedChunkBytes};
  return weights.subspan(begin, std::min<size_t>(kPackedChunkBytes, weights.size() - begin));
}

base::ThreadPool& Pool(std::optional<base::ThreadPool>& pool) {
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  return pool.emplace(std::clamp(cores, 1, kThreadsMax));
}

// The weights of the file, copied into the arena chunk by chunk while their checksums are taken:
// read and not mapped, because a file's pages are small ones (WeightArena). Empty if the file is
// not there, another's, or damaged.
std::span<std::byte> ReadWeights(const PackedKey& key, WeightArena& arena) {
  const File file(key.Path(), O_RDONLY);
  if (!file.ok()) return {};
  const uint64_t file_bytes = file.bytes();
  std::vector<std::byte> head(kPackedPrefixBytes);
  if (file_bytes < head.size() || !file.Read(head, 0)) return {};
  const absl::StatusOr<uint64_t> head_bytes = PackedHeaderBytes(head, file_bytes);
  if (!head_bytes.ok()) return {};
  head.resize(*head_bytes);
  if (!file.Read(head, 0)) return {};
  const absl::StatusOr<PackedHeader> header = ParsePackedHeader(head, file_bytes);
  if (!header.ok() || header->key != key.Text() || header->weight_bytes == 0) return {};
  const std::span<std::byte> weights(arena.Allocate(header->weight_bytes), header->weight_bytes);
  std::atomic<bool> intact{true};
  std::optional<base::ThreadPool> pool;
  Pool(pool).ParallelFor(header->checksums.size(), 1, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end && intact; ++i) {
      const std::span<std::byte> chunk = ChunkOf(weights, i);
      if (!file.Read(chunk, *head_bytes + i * uint64_t{kPackedChunkBytes}) ||
          base::Crc32c(chunk) != header->checksums[i]) {
        intact = false;
      }
    }
  });
  return intact ? weights : std::span<std::byte>();
}

// Checksums of the allocations as one run of bytes.
std::vector<uint32_t> ChecksumsOf(const WeightArena& arena) {
  std::vector<uint32_t> checksums;
  uint32_t crc = 0;
  size_t filled = 0;
  for (std::span<const std::byte> piece : arena.allocations()) {
    while (!piece.empty()) {
      const size_t count = std::min(piece.size(), kPackedChunkBytes - filled);
      crc = base::Crc32c(piece.first(count), crc);
      piece = piece.subspan(count);
      filled += count;
      if (filled < kPackedChunkBytes) continue;
      checksums.push_back(crc);
      crc = 0;
      filled = 0;
    }
  }
  if (filled > 0) checksums.push_back(crc);
  return checksums;
}

bool HasSpace(const std::string& directory, uint64_t bytes) {
  struct statvfs info = {};
  if (statvfs(directory.c_str(), &info) != 0) return false;
  return uint64_t{info.f_bavail} * info.f_frsize / 2 > bytes;
}

bool WriteFile(const std::string& path, const std::string& header, const WeightArena& arena) {
  const File file(path, O_WRONLY | O_CREAT | O_EXCL);
  if (!file.ok() || !file.Write(std::as_bytes(std::span(header)))) return false;
  for (const std::span<std::byte> piece : arena.allocations()) {
    if (!file.Write(piece)) return false;
  }
  return true;
}

// Through a temporary file and a rename, so that no reader sees half of it.
void Write(const PackedKey& key, const WeightArena& arena) {
  static std::atomic<int> writers{0};  // two threads may load the same model
  const uint64_t bytes = arena.allocated_bytes();
  if (access(key.directory.c_str(), W_OK) != 0 || !HasSpace(key.directory, bytes)) return;
  const std::string path = key.Path();
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".", writers++, ".tmp");
  const PackedHeader header{key.Text(), bytes, ChecksumsOf(arena)};
  if (!WriteFile(temporary, WritePackedHeader(header), arena) ||
      std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
  }
}

}  // namespace

std::byte* PackedWeights::Take(size_t bytes) {
  bytes = WeightArena::Rounded(bytes);
  if (bytes > left_.size()) return nullptr;
  std::byte* piece = left_.data();
  left_ = left_.subspan(bytes);
  return piece;
}

std::string PackedKey::Path() const {
  return JoinPath(directory, absl::StrCat("expertmesh-packed-", profile, "-", part, ".bin"));
}

std::string PackedKey::Text() const {
  return absl::StrCat("revision ", revision, "\nprofile ", profile, "\npart ", part, "\n");
}

absl::Status LoadPacked(const PackedKey& key, WeightArena& arena,
                        const std::function<absl::Status(PackedWeights*)>& load) {
  const std::span<std::byte> weights = ReadWeights(key, arena);
  if (!weights.empty()) {
    PackedWeights pieces(weights);
    if (load(&pieces).ok() && pieces.empty()) return absl::OkStatus();
  }
  arena.Clear();
  const absl::Status status = load(nullptr);
  if (status.ok() && arena.allocated_bytes() >= key.bytes_min) Write(key, arena);
  return status;
}

}  // namespace expertmesh::model
