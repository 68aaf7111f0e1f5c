#include "attention-worker/engram_segments.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/hash.h"
#include "services/base/status.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Reason;
namespace pb = engram::v1;

namespace {

absl::Status Check(const model::MappedSegment& segment, const pb::SegmentFile& file,
                   const pb::LayerShape& table, const pb::AcquireLeaseResponse& lease) {
  const model::FileIdentity named{file.device(), file.inode()};
  if (segment.file().identity() != named || segment.file().stamp().bytes != file.bytes()) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat(file.path(), ": not the file that the store has open"));
  }
  const model::SegmentHeader& header = segment.header();
  if (base::Hex(header.version) != lease.version() || header.layer != table.layer() ||
      static_cast<uint32_t>(header.format) != static_cast<uint32_t>(lease.shape().format()) ||
      header.width != lease.shape().width() || header.rows != table.rows()) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat(file.path(), ": it is of another version, layer or shape"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MappedTables>> MappedTables::Open(
    const pb::AcquireLeaseResponse& lease) {
  if (lease.segments_size() != lease.shape().layers_size()) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("the store names ", lease.segments_size(), " files for ",
                              lease.shape().layers_size(), " tables"));
  }
  auto tables = std::make_shared<MappedTables>();
  for (int i = 0; i < lease.segments_size(); ++i) {
    const pb::SegmentFile& file = lease.segments(i);
    EM_ASSIGN_OR_RETURN(auto segment, model::MappedSegment::Open(file.path()));
    EM_RETURN_IF_ERROR(Check(*segment, file, lease.shape().layers(i), lease));
    tables->segments_.emplace(segment->header().layer, std::move(segment));
  }
  return tables;
}

const model::MappedSegment* MappedTables::Find(uint32_t layer) const {
  const auto it = segments_.find(layer);
  return it == segments_.end() ? nullptr : it->second.get();
}

}  // namespace expertmesh::attention_worker
