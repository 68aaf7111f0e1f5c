// The sampling part of a model's generation_config.json. Pure.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "gateway/core/api_request.h"

namespace expertmesh::gateway {

/// Reads temperature, top_p, top_k, min_p and repetition_penalty; other keys are for other
/// programs. `do_sample: false` means greedy, whatever the temperature. Errors: kInvalidArgument
/// naming the key whose value is out of range. Never aborts on any bytes.
absl::StatusOr<SamplingDefaults> ParseSamplingDefaults(std::string_view text);

}  // namespace expertmesh::gateway
