// Bodies of the OpenAI API, read as far as a measurement needs them. Pure; never abort on any bytes
// (fuzzed).
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace expertmesh::cli {

/// content of the first choice of a chat completion; kInternal for anything else.
absl::StatusOr<std::string> AnswerOfCompletion(std::string_view body);
/// id of the only model of /v1/models; kInvalidArgument if there are several.
absl::StatusOr<std::string> OnlyModelOf(std::string_view body);
/// The message of an error, else the beginning of the body.
std::string ErrorTextOf(std::string_view body);

}  // namespace expertmesh::cli
