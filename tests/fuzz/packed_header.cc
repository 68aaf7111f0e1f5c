// Files of packed weights: an error with a reason, or a header that is written the same again.
#include "model/packed_header.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

void Check(std::span<const std::byte> bytes, uint64_t file_bytes) {
  const auto size = model::PackedHeaderBytes(bytes, file_bytes);
  const auto header = model::ParsePackedHeader(bytes, file_bytes);
  if (!header.ok()) {
    Require(base::ReasonOf(header.status()) == base::Reason::kBadCheckpoint, "a reason");
    return;
  }
  Require(size.ok() && *size + header->weight_bytes == file_bytes, "the size");
  Require(*size == model::PackedWeightsAt(header->key.size(), header->weight_bytes), "one size");
  const std::string again = model::WritePackedHeader(*header);
  const size_t covered =
      model::kPackedPrefixBytes + header->key.size() + (header->checksums.size() + 1) * 4;
  Require(again.size() == *size && std::memcmp(again.data(), bytes.data(), covered) == 0,
          "the header as it is written");
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  const auto bytes = fuzz::Bytes(data, size);
  fuzz::Check(bytes, size);
  // The fuzzer cannot guess a checksum: its bytes become a header that is right but for one byte.
  model::PackedHeader header;
  header.key.assign(reinterpret_cast<const char*>(data), std::min<size_t>(size, 100));
  header.weight_bytes = uint64_t{size} * 131071;
  header.checksums.resize((header.weight_bytes + model::kPackedChunkBytes - 1) /
                          model::kPackedChunkBytes);
  std::string file = model::WritePackedHeader(header);
  const uint64_t file_bytes = file.size() + header.weight_bytes;
  fuzz::Check(std::as_bytes(std::span(file)), file_bytes);
  if (size > 2) file[data[0] % file.size()] = static_cast<char>(data[1]);
  fuzz::Check(std::as_bytes(std::span(file)), file_bytes);
  return 0;
}
