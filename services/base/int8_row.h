// Rows in int8 with one f32 scale each: how activations are quantised, on the wire and where
// nothing is sent (docs/protocol.md §1, docs/architecture.md §4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace expertmesh::base {

/// Writes codes[i] = nearest-even(row[i] · (127 / amax)), from −127 to 127, and returns the scale
/// amax / 127, where amax is the greatest magnitude of the row; an amax below 2^-100 counts as 0:
/// codes and scale 0. A row with a NaN or an infinity gets codes 0 and the scale NaN.
/// row, codes [n]; plain f32 operations, the same bits everywhere.
float QuantiseInt8Row(std::span<const float> row, int8_t* codes);

}  // namespace expertmesh::base
