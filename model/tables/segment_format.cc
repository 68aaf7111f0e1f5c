#include "model/tables/segment_format.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

using base::Error;
using base::Reason;

constexpr std::string_view kMagic = "EMENGSEG";
constexpr uint32_t kFormatVersion = 1;
constexpr size_t kCrcAt = kSegmentHeaderBytes - sizeof(uint32_t);

template <class T>
void Put(std::span<std::byte> bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

template <class T>
T Get(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

TableShape ShapeOf(const SegmentHeader& header) {
  return {header.format, header.width, {{header.layer, header.rows}}};
}

absl::Status Bad(const std::string& why) {
  return Error(Reason::kInvalidArgument, absl::StrCat("no usable segment: ", why));
}

}  // namespace

std::array<std::byte, kSegmentHeaderBytes> WriteSegmentHeader(const SegmentHeader& header) {
  std::array<std::byte, kSegmentHeaderBytes> bytes{};
  const TableShape shape = ShapeOf(header);
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  Put(bytes, 8, kFormatVersion);
  Put(bytes, 12, static_cast<uint32_t>(kSegmentHeaderBytes));
  std::memcpy(bytes.data() + 16, header.version.data(), header.version.size());
  Put(bytes, 48, header.layer);
  Put(bytes, 52, static_cast<uint32_t>(header.format));
  Put(bytes, 56, header.width);
  Put(bytes, 60, static_cast<uint32_t>(shape.record_bytes()));
  Put(bytes, 64, header.rows);
  Put(bytes, 72, shape.total_bytes());
  Put(bytes, kCrcAt, base::Crc32c(std::span<const std::byte>(bytes).first(kCrcAt)));
  return bytes;
}

absl::StatusOr<SegmentHeader> ParseSegmentHeader(std::span<const std::byte> file) {
  if (file.size() < kSegmentHeaderBytes) {
    return Bad(absl::StrCat(file.size(), " bytes, less than a header"));
  }
  if (std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    return Bad("it does not begin with EMENGSEG");
  }
  if (Get<uint32_t>(file, kCrcAt) != base::Crc32c(file.first(kCrcAt))) {
    return Error(Reason::kEngramChecksum, "the segment's header does not match its checksum");
  }
  if (Get<uint32_t>(file, 8) != kFormatVersion || Get<uint32_t>(file, 12) != kSegmentHeaderBytes) {
    return Bad(absl::StrCat("format ", Get<uint32_t>(file, 8), ", this program reads 1"));
  }
  SegmentHeader header;
  std::memcpy(header.version.data(), file.data() + 16, header.version.size());
  header.layer = Get<uint32_t>(file, 48);
  header.format = static_cast<RowFormat>(Get<uint32_t>(file, 52));
  header.width = Get<uint32_t>(file, 56);
  header.rows = Get<uint64_t>(file, 64);
  const TableShape shape = ShapeOf(header);
  EM_RETURN_IF_ERROR(shape.Check());
  if (Get<uint32_t>(file, 60) != shape.record_bytes() ||
      Get<uint64_t>(file, 72) != shape.total_bytes()) {
    return Bad("its sizes contradict each other");
  }
  const uint64_t wanted = kSegmentHeaderBytes + shape.total_bytes();
  if (file.size() != wanted) {
    return Bad(absl::StrCat("the file has ", file.size(), " bytes, its header says ", wanted));
  }
  return header;
}

std::span<const std::byte> SegmentRecord(const SegmentHeader& header,
                                         std::span<const std::byte> file, uint64_t row) {
  if (row >= header.rows) return {};
  const size_t record = ShapeOf(header).record_bytes();
  return file.subspan(kSegmentHeaderBytes + row * record, record);
}

}  // namespace expertmesh::model
