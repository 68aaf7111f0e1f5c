// What was built: the project's version and the commit, as known when the build was configured.
#pragma once

#include <string_view>

namespace expertmesh::telemetry {

struct BuildInfo {
  std::string_view version;  // "0.1.0"
  std::string_view commit;   // short hash, or "unknown" outside a git checkout
};

BuildInfo GetBuildInfo();

}  // namespace expertmesh::telemetry
