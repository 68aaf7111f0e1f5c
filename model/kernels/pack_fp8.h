// Packs fp8 matrices as they are (fp8_layout.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "model/formats/stored_matrix.h"
#include "model/kernels/packed_matrix.h"

namespace expertmesh::model {

/// Whether panels can hold it: fp8 whose scales are each of whole groups and panels, and below
/// kFp8ScaleMax. Reads all scales. What does not fit is to be rounded to bf16, which gives the same
/// bits.
bool FitsFp8Panels(const StoredMatrix& matrix);

/// Rows [row_begin, row_begin + rows) become outputs [output_begin, …) of `to`; both begin at a
/// multiple of 16. Errors of DecodeRows.
absl::Status PackFp8Rows(const StoredMatrix& from, size_t row_begin, size_t rows, PackedMatrix& to,
                         size_t output_begin);

}  // namespace expertmesh::model
