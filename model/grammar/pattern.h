// A schema's `pattern` as an automaton over the bytes of the string it describes.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/grammar/byte_machine.h"

namespace expertmesh::model {

/// Strings that the pattern matches somewhere (so ^ and $ are up to the pattern) and that have
/// `least` to `most` code points. kSchemaUnsupported, naming the keyword: outside the subset of
/// pattern_parser.h, or more than ByteMachine::kStatesMax states.
absl::StatusOr<ByteMachine> CompilePattern(std::string_view pattern, uint32_t least, uint32_t most);

/// The same for bytes outside of quotes, such as numbers.
absl::StatusOr<ByteMachine> CompileBare(std::string_view pattern);

}  // namespace expertmesh::model
