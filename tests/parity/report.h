// Lines for docs/fidelity.md: one JSON object per comparison, appended to EXPERTMESH_PARITY_REPORT.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/parity/golden.h"

namespace expertmesh::parity {

/// `figures`: name and value as it shall stand in the table. Does nothing without the variable.
void Report(const Golden& golden, const std::string& path, const std::string& compared,
            const std::vector<std::pair<std::string, std::string>>& figures);

/// Two significant digits: "3.1e-06". Zero is "0".
std::string Short(double value);

}  // namespace expertmesh::parity
