// A segment in memory: the file mapped, its header checked once, its rows checked when they are
// read (docs/engram-store.md §2). All processes that map one file share its pages.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint_files.h"
#include "model/tables/segment_format.h"

namespace expertmesh::model {

/// Immutable, thread-safe.
class MappedSegment {
 public:
  /// O(1) whatever the size. kBadCheckpoint, kEngramChecksum or kInvalidArgument beginning with the
  /// path.
  static absl::StatusOr<std::unique_ptr<const MappedSegment>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const SegmentHeader& header() const { return header_; }
  const MappedFile& file() const { return *file_; }
  size_t row_bytes() const { return record_bytes_ - kChecksumBytes; }

  /// Copies the first `count` rows of ids to out [count, row_bytes] and holds the copies against
  /// their checksums; what follows in ids is prefetched. The places in ids of rows that do not
  /// match or are not there are added to `damaged`, ascending; their bytes in out are not to be
  /// read.
  void Read(std::span<const uint64_t> ids, size_t count, std::byte* out,
            std::vector<size_t>& damaged) const;
  /// The same for rows that are there, without looking at checksums: to measure what they cost.
  void ReadUnchecked(std::span<const uint64_t> ids, std::byte* out) const;

 private:
  MappedSegment(std::string path, const SegmentHeader& header, std::unique_ptr<MappedFile> file);
  const std::byte* RecordOf(uint64_t row) const { return records_ + row * record_bytes_; }
  void Prefetch(uint64_t row) const;

  const std::string path_;
  const SegmentHeader header_;
  const std::unique_ptr<MappedFile> file_;
  const std::byte* const records_;  // [rows, record_bytes_]
  const size_t record_bytes_;
};

}  // namespace expertmesh::model
