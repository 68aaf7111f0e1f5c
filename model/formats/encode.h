// Quantisers: float32 rows into the forms of stored_matrix.h (docs/formats.md §7.3 and §7.6).
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "model/formats/stored_matrix.h"

namespace expertmesh::model {

/// Encodes rows [row_count, columns], which begin at a block and end at one or at the last row of
/// the matrix. Writes values [row_count · RowBytes] and scales [ScaleRows(row_count) ·
/// ScaleRowBytes]. Per block, amax = its largest magnitude:
///   fp8   s = 2^⌈log2(max(amax, 1e-4) / 448)⌉
///   fp4   s = 2^⌈log2(max(amax, 6·2^-126) / 6)⌉
///   int8  s = F16(amax / 127), at least the smallest F16 where amax > 0
///   int4  s = F16(amax / 7), likewise; codes −7 … 7
/// and every value is divided by the ROUNDED scale and rounded to nearest even. Errors are
/// kInvalidArgument without the tensor's name: a value that is not finite, or too large for the
/// form.
absl::Status EncodeRows(const MatrixFormat& format, const float* rows, uint64_t row_count,
                        uint64_t columns, std::byte* values, std::byte* scales);

}  // namespace expertmesh::model
