// Segments of n-gram tables (docs/engram-store.md §2): an error with a reason, or a header whose
// rows lie inside the file and are held against their checksums.
#include <algorithm>
#include <cstring>
#include <vector>

#include "model/tables/row_record.h"
#include "model/tables/segment_format.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

void Check(std::span<const std::byte> file) {
  const auto header = model::ParseSegmentHeader(file);
  if (!header.ok()) {
    const base::Reason reason = base::ReasonOf(header.status());
    return Require(
        reason == base::Reason::kEngramChecksum || reason == base::Reason::kInvalidArgument,
        "a segment's reason");
  }
  const model::TableShape shape{header->format, header->width, {{header->layer, header->rows}}};
  Require(shape.Check().ok(), "a checked shape");
  Require(file.size() == model::kSegmentHeaderBytes + shape.total_bytes(), "the size");
  const auto again = model::WriteSegmentHeader(*header);
  Require(std::memcmp(again.data(), file.data(), 80) == 0, "the header as it is written");
  for (const uint64_t row : {uint64_t{0}, header->rows - 1, header->rows, UINT64_MAX}) {
    const auto record = model::SegmentRecord(*header, file, row);
    Require(record.empty() == (row >= header->rows), "a record for every row");
    if (record.empty()) continue;
    Require(record.data() + record.size() <= file.data() + file.size(), "a record in the file");
    model::IsIntact(header->layer, row, record);
  }
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  fuzz::Check(fuzz::Bytes(data, size));
  // The fuzzer cannot guess a checksum nor 4 KiB of zeros: its bytes become the fields of a header
  // that is right, and rows behind it.
  std::vector<std::byte> file(model::kSegmentHeaderBytes);
  std::memcpy(file.data(), "EMENGSEG\1\0\0\0\0\x10\0\0", 16);
  const auto bytes = fuzz::Bytes(data, size);
  const size_t fields = std::min<size_t>(bytes.size(), 64);
  std::copy_n(bytes.begin(), fields, file.begin() + 16);
  const uint32_t crc = base::Crc32c(std::span<const std::byte>(file).first(4092));
  std::memcpy(file.data() + 4092, &crc, sizeof(crc));
  file.insert(file.end(), bytes.begin() + static_cast<ptrdiff_t>(fields), bytes.end());
  fuzz::Check(file);
  return 0;
}
