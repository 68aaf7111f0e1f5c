// JSON text of model files, parsed within bounds.
#pragma once

#include <boost/json/value.hpp>
#include <string_view>

#include "absl/status/statusor.h"
#include "services/base/status.h"

namespace expertmesh::model {

/// Nesting deeper than this is an error.
inline constexpr int kJsonDepthMax = 16;

/// One JSON value and nothing after it. Errors carry `reason` and say at which byte. No exception
/// leaves it, on any bytes.
absl::StatusOr<boost::json::value> ParseJson(std::string_view text, base::Reason reason);

}  // namespace expertmesh::model
