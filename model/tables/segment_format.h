// The bytes of a segment: one table of one published version (docs/engram-store.md §2). Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tables/table_shape.h"

namespace expertmesh::model {

inline constexpr size_t kSegmentHeaderBytes = 4096;
using VersionBytes = std::array<uint8_t, 32>;

struct SegmentHeader {
  VersionBytes version{};
  uint32_t layer = 0;
  RowFormat format = RowFormat::kF32;
  uint32_t width = 0;
  uint64_t rows = 0;
  friend bool operator==(const SegmentHeader&, const SegmentHeader&) = default;
};

/// The header's kSegmentHeaderBytes bytes.
std::array<std::byte, kSegmentHeaderBytes> WriteSegmentHeader(const SegmentHeader& header);

/// Reads a segment's header and checks it against the size of the file. kEngramChecksum or
/// kInvalidArgument saying what is wrong. Never aborts on any bytes (fuzzed).
absl::StatusOr<SegmentHeader> ParseSegmentHeader(std::span<const std::byte> file);

/// The record of a row of a segment whose header was parsed; empty if there is no such row.
std::span<const std::byte> SegmentRecord(const SegmentHeader& header,
                                         std::span<const std::byte> file, uint64_t row);

}  // namespace expertmesh::model
