// The header of a file of packed weights (packed_cache.h). Little-endian, padded to whole pages:
//   0   "EMPACKED"
//   8   u32 layout: kPackedLayout of the writer
//   12  u32 bytes of the key
//   16  u64 bytes of the weights
//   24  u32 bytes of a chunk
//   28  u32 chunks = ⌈weights / chunk⌉
//   32  key: text that names revision, profile and part of the model
//       then u32 [chunks]: CRC32C of every chunk
//       then u32: CRC32C of everything before it
//   the weights begin at the next multiple of kPackedAlign
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// Counts up with every change of how weights are packed (int8_layout.h, fp8_layout.h,
/// packed_matrix.h) or of the order in which a model is loaded.
inline constexpr uint32_t kPackedLayout = 3;
inline constexpr size_t kPackedAlign = 4096;
inline constexpr size_t kPackedKeyBytesMax = 4096;
inline constexpr uint32_t kPackedChunkBytes = uint32_t{4} << 20;
inline constexpr uint64_t kPackedBytesMax = uint64_t{1} << 42;
inline constexpr size_t kPackedPrefixBytes = 32;

struct PackedHeader {
  std::string key;
  uint64_t weight_bytes = 0;
  std::vector<uint32_t> checksums;  // of chunks of kPackedChunkBytes
};

/// Where the weights begin, for a key and weights of these sizes.
uint64_t PackedWeightsAt(size_t key_bytes, uint64_t weight_bytes);

/// The header as it lies in a file, PackedWeightsAt bytes.
std::string WritePackedHeader(const PackedHeader& header);

/// Bytes of the header of a file of `file_bytes` that begins with `prefix` (kPackedPrefixBytes);
/// kBadCheckpoint if it is none of this layout, or the file has another length than it says.
absl::StatusOr<uint64_t> PackedHeaderBytes(std::span<const std::byte> prefix, uint64_t file_bytes);

/// Parses the header from its bytes, all of them. kBadCheckpoint as above, or by its checksum.
/// Never aborts on any bytes (fuzzed).
absl::StatusOr<PackedHeader> ParsePackedHeader(std::span<const std::byte> bytes,
                                               uint64_t file_bytes);

}  // namespace expertmesh::model
