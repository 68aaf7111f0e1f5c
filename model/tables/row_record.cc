#include "model/tables/row_record.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "model/tables/table_shape.h"
#include "services/base/crc32c.h"

namespace expertmesh::model {

static_assert(std::endian::native == std::endian::little, "files are written as memory has them");

uint32_t RowChecksum(uint32_t layer, uint64_t row, std::span<const std::byte> bytes) {
  std::array<std::byte, 12> id;
  std::memcpy(id.data(), &layer, sizeof(layer));
  std::memcpy(id.data() + sizeof(layer), &row, sizeof(row));
  return base::Crc32c(bytes, base::Crc32c(id));
}

void WriteRecord(uint32_t layer, uint64_t row, std::span<const std::byte> bytes,
                 std::span<std::byte> record) {
  const uint32_t checksum = RowChecksum(layer, row, bytes);
  std::copy(bytes.begin(), bytes.end(), record.begin());
  std::memcpy(record.data() + bytes.size(), &checksum, sizeof(checksum));
}

bool IsIntact(uint32_t layer, uint64_t row, std::span<const std::byte> record) {
  const std::span<const std::byte> bytes = record.first(record.size() - kChecksumBytes);
  uint32_t checksum = 0;
  std::memcpy(&checksum, record.data() + bytes.size(), sizeof(checksum));
  return checksum == RowChecksum(layer, row, bytes);
}

}  // namespace expertmesh::model
