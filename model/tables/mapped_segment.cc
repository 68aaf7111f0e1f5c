#include "model/tables/mapped_segment.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "model/tables/row_record.h"

namespace expertmesh::model {
namespace {

constexpr size_t kLineBytes = 64;
constexpr size_t kAhead = 16;  // rows that are on their way while one is copied
// Rows that are copied before they are checked: the processor then waits for many at once, which it
// does not with a checksum between two copies, and finds the copies in its nearest cache.
constexpr size_t kBlockRows = 32;

}  // namespace

MappedSegment::MappedSegment(std::string path, const SegmentHeader& header,
                             std::unique_ptr<MappedFile> file)
    : path_(std::move(path)),
      header_(header),
      file_(std::move(file)),
      records_(file_->bytes().data() + kSegmentHeaderBytes),
      record_bytes_(
          TableShape{header.format, header.width, {{header.layer, header.rows}}}.record_bytes()) {}

absl::StatusOr<std::unique_ptr<const MappedSegment>> MappedSegment::Open(const std::string& path) {
  EM_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  const absl::StatusOr<SegmentHeader> header = ParseSegmentHeader(file->bytes());
  if (!header.ok()) return base::Annotate(header.status(), path + ": ");
  return std::unique_ptr<const MappedSegment>(new MappedSegment(path, *header, std::move(file)));
}

void MappedSegment::Prefetch(uint64_t row) const {
  if (row >= header_.rows) return;
  const std::byte* record = RecordOf(row);
  for (size_t at = 0; at < record_bytes_; at += kLineBytes) __builtin_prefetch(record + at);
}

void MappedSegment::Read(std::span<const uint64_t> ids, size_t count, std::byte* out,
                         std::vector<size_t>& damaged) const {
  std::array<uint32_t, kBlockRows> checksums;
  for (size_t first = 0; first < count; first += kBlockRows) {
    const size_t end = std::min(first + kBlockRows, count);
    for (size_t i = first; i < end; ++i) {
      if (i + kAhead < ids.size()) Prefetch(ids[i + kAhead]);
      if (ids[i] >= header_.rows) continue;
      const std::byte* record = RecordOf(ids[i]);
      std::memcpy(out + i * row_bytes(), record, row_bytes());
      std::memcpy(&checksums[i - first], record + row_bytes(), kChecksumBytes);
    }
    for (size_t i = first; i < end; ++i) {
      const bool intact = ids[i] < header_.rows &&
                          checksums[i - first] == RowChecksum(header_.layer, ids[i],
                                                              {out + i * row_bytes(), row_bytes()});
      if (!intact) damaged.push_back(i);
    }
  }
}

void MappedSegment::ReadUnchecked(std::span<const uint64_t> ids, std::byte* out) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i + kAhead < ids.size()) Prefetch(ids[i + kAhead]);
    std::memcpy(out + i * row_bytes(), RecordOf(ids[i]), row_bytes());
  }
}

}  // namespace expertmesh::model
