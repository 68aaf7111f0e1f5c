// Defaults that a model directory brings along.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "gateway/core/api_request.h"

namespace expertmesh::gateway {

/// The sampling defaults of generation_config.json; the usual ones if there is no such file.
/// Errors name the file.
absl::StatusOr<SamplingDefaults> LoadSamplingDefaults(const std::string& model_directory);

}  // namespace expertmesh::gateway
