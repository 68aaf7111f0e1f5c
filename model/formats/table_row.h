// One row of a memory table as it is stored and sent: its values, then its scales, in one run of
// bytes (docs/model-family.md §3, docs/engram-store.md §2).
#pragma once

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "model/formats/stored_matrix.h"

namespace expertmesh::model {

inline constexpr MatrixFormat kFp8TableRows{ValueFormat::kE4m3, ScaleFormat::kE8m0, 1, kTableBlock};

/// What tables of the memory may be stored as: F32, BF16 or fp8 with a scale for 32 columns.
bool IsTableFormat(const MatrixFormat& format);

/// Rows of one table format and width. Not thread-safe.
class TableRowCodec {
 public:
  TableRowCodec(const MatrixFormat& format, size_t width);

  size_t width() const { return matrix_.columns; }
  size_t row_bytes() const { return value_bytes_ + scale_bytes_; }
  /// As DecodeRows: the same bits as from the matrix the row was taken of. out [width].
  absl::Status Decode(std::span<const std::byte> row, float* out);
  /// As EncodeRows. row [row_bytes].
  absl::Status Encode(const float* values, std::span<std::byte> row) const;

 private:
  StoredMatrix matrix_;
  size_t value_bytes_;
  size_t scale_bytes_;
};

}  // namespace expertmesh::model
