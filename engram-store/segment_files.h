// Segments on disk: written aside and renamed, mapped and read row by row (docs/engram-store.md §2,
// §3).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "engram-store/core/version_catalogue.h"
#include "engram-store/row_table.h"

namespace expertmesh::engram_store {

/// The rows of a mapped segment.
class SegmentTable final : public RowTable {
 public:
  /// kEngramChecksum or kInvalidArgument beginning with the path: no usable segment, or one of
  /// another version, layer or shape.
  static absl::StatusOr<std::unique_ptr<SegmentTable>> Open(const std::string& path,
                                                            const VersionRecord& version,
                                                            const TableShape::Layer& layer);

  absl::Status Read(std::span<const uint64_t> ids, std::byte* out) const override;
  const model::MappedSegment* segment() const override { return segment_.get(); }

 private:
  explicit SegmentTable(std::unique_ptr<const model::MappedSegment> segment)
      : segment_(std::move(segment)) {}
  const std::unique_ptr<const model::MappedSegment> segment_;
};

/// The folder DIR/segments. One writer at a time.
class SegmentFolder {
 public:
  explicit SegmentFolder(const std::string& data_directory);

  using Tables = std::map<uint32_t, std::unique_ptr<RowTable>>;  // by layer
  /// Maps the segments of a version.
  absl::StatusOr<Tables> Open(const VersionRecord& version) const;

  /// Hands every block of a layer's table, in order, to `use`.
  using UseBlock = std::function<absl::Status(uint64_t block, std::span<const std::byte> records)>;
  using Source = std::function<absl::Status(uint32_t layer, const UseBlock& use)>;
  /// Writes the segments of a version, replacing what stands there; whole and synced, or not at
  /// all. kDiskFull saying what is needed.
  absl::Status Write(const VersionRecord& version, const Source& source) const;
  void Remove(const std::string& version) const;
  /// Removes what writers left and folders of versions not in `published`.
  void CleanUp(const std::set<std::string>& published) const;

  std::string PathOf(const std::string& version, uint32_t layer) const;

 private:
  std::string Folder(const std::string& version) const { return root_ + "/" + version; }
  const std::string root_;
};

}  // namespace expertmesh::engram_store
