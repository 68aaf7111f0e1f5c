// The pure part of the service: no clock, no thread, no network.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace expertmesh::example {

/// Number of runs of bytes other than a space. kInvalidArgument for an empty text.
absl::StatusOr<uint32_t> CountWords(std::string_view text);

}  // namespace expertmesh::example
