#include "services/base/host_identity.h"

#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace expertmesh::base {

std::string HostIdentity() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  char space[64] = {};
  const ssize_t length = readlink("/proc/self/ns/net", space, sizeof(space) - 1);
  if (!std::getline(file, boot) || boot.empty() || length <= 0) return "";
  return absl::StrCat(boot, "/", space);
}

}  // namespace expertmesh::base
