#include "services/telemetry/build_info.h"

#include "expertmesh_build_info.h"  // made at configure time

namespace expertmesh::telemetry {

BuildInfo GetBuildInfo() { return {EXPERTMESH_VERSION, EXPERTMESH_COMMIT}; }

}  // namespace expertmesh::telemetry
