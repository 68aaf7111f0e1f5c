#include "engram-store/disk_space.h"

#include <sys/statvfs.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::engram_store {
namespace {

std::optional<uint64_t> FreeBytes(const std::string& path) {
  struct statvfs stats = {};
  if (statvfs(path.c_str(), &stats) != 0) return std::nullopt;
  return uint64_t{stats.f_bavail} * stats.f_frsize;
}

absl::Status Full(const std::string& directory, uint64_t needed, uint64_t left,
                  const std::string& what) {
  return base::Error(base::Reason::kDiskFull,
                     absl::StrCat(what, " needs ", needed, " bytes in ", directory, ", ", left,
                                  " are free; make room, or move --data to a larger disk"),
                     {{"needed_bytes", absl::StrCat(needed)}, {"free_bytes", absl::StrCat(left)}});
}

}  // namespace

absl::Status CheckRoom(const std::string& directory, uint64_t needed, const std::string& what) {
  const std::optional<uint64_t> left = FreeBytes(directory);
  if (!left || *left >= needed) return absl::OkStatus();
  return Full(directory, needed, *left, what);
}

absl::Status WriteError(int error_number, const std::string& path, uint64_t needed,
                        const std::string& what) {
  if (error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG) {
    const std::string directory = path.substr(0, path.find_last_of('/'));
    return Full(directory, needed, FreeBytes(directory).value_or(0),
                absl::StrCat(what, " (", std::strerror(error_number), ")"));
  }
  return base::Error(base::Reason::kInternal,
                     absl::StrCat(what, ": ", path, ": ", std::strerror(error_number)));
}

}  // namespace expertmesh::engram_store
