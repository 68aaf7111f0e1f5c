// Bounds of one look-up. Pure.
#pragma once

#include <cstddef>

#include "absl/status/status.h"

namespace expertmesh::engram_store {

/// Rows or tokens of one call. 65536 rows of 264 bytes are 17 MiB, well below a message's 65 MiB.
inline constexpr size_t kLookupMax = 65536;

/// Bytes of all rows of one answer.
inline constexpr size_t kLookupBytesMax = size_t{64} << 20;

/// kInvalidArgument naming the field.
absl::Status CheckRowLookup(size_t row_count);
absl::Status CheckRowBytes(size_t row_count, size_t row_bytes);
absl::Status CheckTokenLookup(size_t token_count, size_t skip);

}  // namespace expertmesh::engram_store
