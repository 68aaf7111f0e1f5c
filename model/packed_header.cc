#include "model/packed_header.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr std::string_view kMagic = "EMPACKED";

struct Prefix {
  uint32_t layout = 0;
  uint32_t key_bytes = 0;
  uint64_t weight_bytes = 0;
  uint32_t chunk_bytes = 0;
  uint32_t chunks = 0;
};
static_assert(sizeof(Prefix) + kMagic.size() == kPackedPrefixBytes);

uint64_t ChunksOf(uint64_t bytes) { return (bytes + kPackedChunkBytes - 1) / kPackedChunkBytes; }

// Bytes that the header's own checksum covers.
uint64_t CoveredBytes(const Prefix& p) {
  return kPackedPrefixBytes + p.key_bytes + uint64_t{p.chunks} * sizeof(uint32_t);
}

absl::Status Bad(std::string_view why) {
  return base::Error(base::Reason::kBadCheckpoint,
                     absl::StrCat("no file of packed weights: ", std::string(why)));
}

// Fields that fit each other and the file.
absl::StatusOr<Prefix> ReadPrefix(std::span<const std::byte> bytes, uint64_t file_bytes) {
  if (bytes.size() < kPackedPrefixBytes) return Bad("it is too short");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return Bad("another magic");
  Prefix p;
  std::memcpy(&p, bytes.data() + kMagic.size(), sizeof(p));
  if (p.layout != kPackedLayout) return Bad(absl::StrCat("layout ", p.layout));
  if (p.key_bytes > kPackedKeyBytesMax) return Bad("its key is too long");
  if (p.weight_bytes > kPackedBytesMax) return Bad("its weights are too long");
  if (p.chunk_bytes != kPackedChunkBytes || p.chunks != ChunksOf(p.weight_bytes)) {
    return Bad("its chunks do not fit its weights");
  }
  if (PackedWeightsAt(p.key_bytes, p.weight_bytes) + p.weight_bytes != file_bytes) {
    return Bad("the file has another length");
  }
  return p;
}

}  // namespace

uint64_t PackedWeightsAt(size_t key_bytes, uint64_t weight_bytes) {
  const uint64_t end = kPackedPrefixBytes + key_bytes + (ChunksOf(weight_bytes) + 1) * 4;
  return (end + kPackedAlign - 1) / kPackedAlign * kPackedAlign;
}

std::string WritePackedHeader(const PackedHeader& header) {
  const Prefix p{kPackedLayout, static_cast<uint32_t>(header.key.size()), header.weight_bytes,
                 kPackedChunkBytes, static_cast<uint32_t>(header.checksums.size())};
  std::string out(kMagic);
  out.append(reinterpret_cast<const char*>(&p), sizeof(p));
  out += header.key;
  out.append(reinterpret_cast<const char*>(header.checksums.data()),
             header.checksums.size() * sizeof(uint32_t));
  const uint32_t crc = base::Crc32c(std::as_bytes(std::span(out)));
  out.append(reinterpret_cast<const char*>(&crc), sizeof(crc));
  out.resize(PackedWeightsAt(header.key.size(), header.weight_bytes));
  return out;
}

absl::StatusOr<uint64_t> PackedHeaderBytes(std::span<const std::byte> prefix, uint64_t file_bytes) {
  EM_ASSIGN_OR_RETURN(const Prefix p, ReadPrefix(prefix, file_bytes));
  return PackedWeightsAt(p.key_bytes, p.weight_bytes);
}

absl::StatusOr<PackedHeader> ParsePackedHeader(std::span<const std::byte> bytes,
                                               uint64_t file_bytes) {
  EM_ASSIGN_OR_RETURN(const Prefix p, ReadPrefix(bytes, file_bytes));
  const uint64_t covered = CoveredBytes(p);
  if (bytes.size() < covered + sizeof(uint32_t)) return Bad("its header is too short");
  uint32_t crc = 0;
  std::memcpy(&crc, bytes.data() + covered, sizeof(crc));
  if (base::Crc32c(bytes.first(covered)) != crc) return Bad("its header is damaged");
  PackedHeader header;
  header.key.assign(reinterpret_cast<const char*>(bytes.data()) + kPackedPrefixBytes, p.key_bytes);
  header.weight_bytes = p.weight_bytes;
  header.checksums.resize(p.chunks);
  if (p.chunks == 0) return header;  // no weights, nothing to copy to
  std::memcpy(header.checksums.data(), bytes.data() + kPackedPrefixBytes + p.key_bytes,
              p.chunks * sizeof(uint32_t));
  return header;
}

}  // namespace expertmesh::model
