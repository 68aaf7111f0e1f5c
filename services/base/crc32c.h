// CRC32C (Castagnoli, reflected 0x82F63B78): the checksum of frames and checkpoint bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace expertmesh::base {

/// CRC32C of bytes; `crc` continues an earlier run. SSE4.2 where the CPU has it, else a table; the
/// result is the same. Crc32c of "123456789" is 0xE3069283.
uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t crc = 0);
/// The table version, for the test that compares both.
uint32_t Crc32cPortable(std::span<const std::byte> bytes, uint32_t crc = 0);

}  // namespace expertmesh::base
