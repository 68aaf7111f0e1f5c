// A weight matrix as it lies in a file: values, and scales of blocks where it is quantised
// (docs/formats.md §7.3, docs/model-family.md §3). Decoding gives the float32 that everything else
// is defined on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace expertmesh::model {

enum class ValueFormat { kF32, kF16, kBf16, kE4m3, kE2m1, kInt8, kInt4 };
enum class ScaleFormat { kNone, kF32, kF16, kE8m0 };

/// One scale covers block_rows × block_columns values; blocks at the right and lower edge may be
/// partial.
struct MatrixFormat {
  ValueFormat values = ValueFormat::kF32;
  ScaleFormat scales = ScaleFormat::kNone;
  uint64_t block_rows = 1;
  uint64_t block_columns = 1;

  bool is_quantised() const { return scales != ScaleFormat::kNone; }
  /// Bytes of one row of values. Two 4-bit values share a byte, the lower column in the low nibble;
  /// with an odd number of columns the last high nibble means nothing.
  uint64_t RowBytes(uint64_t columns) const;
  uint64_t ScaleRows(uint64_t rows) const { return (rows + block_rows - 1) / block_rows; }
  uint64_t ScaleColumns(uint64_t columns) const {
    return (columns + block_columns - 1) / block_columns;
  }
  uint64_t ScaleRowBytes(uint64_t columns) const;
  friend bool operator==(const MatrixFormat&, const MatrixFormat&) = default;
};

inline constexpr MatrixFormat kPlainF32 = {ValueFormat::kF32, ScaleFormat::kNone, 1, 1};
inline constexpr MatrixFormat kPlainF16 = {ValueFormat::kF16, ScaleFormat::kNone, 1, 1};
inline constexpr MatrixFormat kPlainBf16 = {ValueFormat::kBf16, ScaleFormat::kNone, 1, 1};
inline constexpr uint64_t kFp4Block = 32;    // columns
inline constexpr uint64_t kTableBlock = 32;  // columns of a fp8 row of a memory table

/// "F32", "BF16", "fp8 128x128", "fp4 1x32", "int8 1x32": as `model show` prints it.
std::string FormatName(const MatrixFormat& format);

/// A view [rows, columns]; the bytes outlive it and may be unaligned.
struct StoredMatrix {
  std::string name;  // for messages, as is file
  std::string file;
  MatrixFormat format;
  uint64_t rows = 0;
  uint64_t columns = 0;
  std::span<const std::byte> values;  // [rows · RowBytes]
  std::span<const std::byte> scales;  // [ScaleRows · ScaleRowBytes]
};

/// Rows [row_begin, row_begin + row_count) into out [row_count, columns]: one float32 product
/// value · scale, which is exact for all forms but fp8 with F32 scales that are no power of two
/// (then rounded to nearest even). A NaN code, a NaN or infinite scale or an overflow of a
/// quantised form is kBadCheckpoint naming file, tensor and element; F32, F16 and BF16 are taken as
/// they are.
absl::Status DecodeRows(const StoredMatrix& matrix, uint64_t row_begin, uint64_t row_count,
                        float* out);
/// The scales of a row's blocks into out [ScaleColumns(columns)], 1 without scales; they may be no
/// numbers.
void DecodeScales(const StoredMatrix& matrix, uint64_t row, float* out);

}  // namespace expertmesh::model
