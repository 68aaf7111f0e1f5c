// Shape of the tables of a version: type and width of a row, rows of each layer, and the sizes that
// follow (docs/engram-store.md §2). Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"

namespace expertmesh::model {

/// Type of a row; the numbers stand in segments and in engram.v1.RowFormat.
enum class RowFormat : uint32_t { kF32 = 1, kBf16 = 2, kE4m3E8m0 = 3 };

inline constexpr size_t kChecksumBytes = 4;
inline constexpr size_t kBlockBytesMax = 4096;
/// Bounds of what a shape may say, so that no product of its numbers overflows.
inline constexpr uint32_t kWidthMax = 1 << 16;
inline constexpr uint64_t kRowsMax = uint64_t{1} << 40;
inline constexpr size_t kLayersMax = 1024;

struct TableShape {
  struct Layer {
    uint32_t layer = 0;
    uint64_t rows = 0;
    friend bool operator==(const Layer&, const Layer&) = default;
  };
  RowFormat format = RowFormat::kF32;
  uint32_t width = 0;         // columns
  std::vector<Layer> layers;  // ascending
  friend bool operator==(const TableShape&, const TableShape&) = default;

  /// kInvalidArgument if a number is outside its bounds or the layers do not ascend. What follows
  /// asks for a checked shape.
  absl::Status Check() const;

  size_t value_bytes() const;
  size_t scale_bytes() const;
  size_t row_bytes() const { return value_bytes() + scale_bytes(); }
  size_t record_bytes() const { return row_bytes() + kChecksumBytes; }
  /// Row records of a block: the largest power of two of at most kBlockBytesMax, at least 1.
  uint64_t rows_per_block() const;
  uint64_t blocks(const Layer& layer) const;
  /// Row records of that block; the last one of a table may have fewer.
  uint64_t rows_of_block(const Layer& layer, uint64_t block) const;

  const Layer* Find(uint32_t layer) const;  // null if there is no such table
  uint64_t total_rows() const;
  uint64_t total_bytes() const { return total_rows() * record_bytes(); }
};

}  // namespace expertmesh::model
