// What a request lets the answer say, as inference.v1.Constraint: response_format, forced calls,
// strict tools, behind the reasoning if there is any (docs/structured-output.md).
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "expertmesh/inference/v1/inference.pb.h"
#include "gateway/api.h"

namespace expertmesh::gateway {

/// nullopt: anything. Errors carry metadata "param": kSchemaUnsupported, naming the keyword;
/// kUnsupported if the tokenizer has no tokens for calls.
absl::StatusOr<std::optional<inference::v1::Constraint>> ConstraintOf(
    const Api& api, const ApiRequest& request, std::optional<uint32_t> end_of_reasoning);

}  // namespace expertmesh::gateway
