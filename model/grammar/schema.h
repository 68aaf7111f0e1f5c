// JSON schemas → grammars (docs/structured-output.md). What is written is always an instance of the
// schema; where a schema leaves things open the grammar may be narrower than it.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/grammar/grammar.h"

namespace expertmesh::model {

/// Longest schema, bytes.
inline constexpr size_t kSchemaBytesMax = 256 * 1024;

/// Adds the values of a schema (JSON text). kSchemaUnsupported, naming the keyword and the place as
/// a JSON pointer; kInvalidArgument if it is no JSON. Never aborts or hangs on any bytes.
absl::StatusOr<NodeId> AddSchema(GrammarBuilder& builder, std::string_view schema);

/// The grammar of one schema.
absl::StatusOr<std::shared_ptr<const Grammar>> CompileSchema(std::string_view schema);

}  // namespace expertmesh::model
