// A row with its checksum, as it lies in segments and blocks (docs/engram-store.md §2). Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace expertmesh::model {

/// CRC32C over layer, row id and the row's bytes.
uint32_t RowChecksum(uint32_t layer, uint64_t row, std::span<const std::byte> bytes);

/// Writes row and checksum: record has 4 bytes more than the row.
void WriteRecord(uint32_t layer, uint64_t row, std::span<const std::byte> bytes,
                 std::span<std::byte> record);

/// Whether the record holds that row, unchanged.
bool IsIntact(uint32_t layer, uint64_t row, std::span<const std::byte> record);

}  // namespace expertmesh::model
