#include "engram-store/cold_table.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/tables/row_record.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::engram_store {

HotRows::HotRows(size_t rows_max, size_t row_bytes, telemetry::Metrics& metrics)
    : cache_(rows_max, row_bytes),
      hits_(metrics.GetCounter(telemetry::metric::kEngramHotRows, {{"result", "hit"}})),
      misses_(metrics.GetCounter(telemetry::metric::kEngramHotRows, {{"result", "miss"}})) {}

absl::Status ColdTable::Read(std::span<const uint64_t> ids, std::byte* out) const {
  const size_t row_bytes = version_.shape.row_bytes();
  std::map<uint64_t, std::vector<size_t>> wanted;  // block → places in ids
  {
    std::lock_guard lock(hot_->mutex_);
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::byte* row = hot_->cache_.Find(table_, ids[i]);
      if (row != nullptr) {
        std::memcpy(out + i * row_bytes, row, row_bytes);
      } else {
        wanted[ids[i] / version_.shape.rows_per_block()].push_back(i);
      }
    }
  }
  size_t missed = 0;
  std::vector<uint64_t> blocks;
  for (const auto& [block, places] : wanted) {
    blocks.push_back(block);
    missed += places.size();
  }
  hot_->hits_.Add(static_cast<double>(ids.size() - missed));
  hot_->misses_.Add(static_cast<double>(missed));
  const auto take = [&](uint64_t block, std::span<const std::byte> records) -> absl::Status {
    const size_t record = version_.shape.record_bytes();
    const uint64_t first = block * version_.shape.rows_per_block();
    for (const size_t place : wanted.at(block)) {
      const auto bytes = records.subspan((ids[place] - first) * record, record);
      if (!model::IsIntact(layer_, ids[place], bytes)) {
        return base::Error(base::Reason::kEngramChecksum,
                           absl::StrCat("the record: layer ", layer_, ", row ", ids[place],
                                        " does not match its checksum; restore the database"));
      }
      std::memcpy(out + place * row_bytes, bytes.data(), row_bytes);
    }
    return absl::OkStatus();
  };
  EM_RETURN_IF_ERROR(db_.ReadBlocks(version_, layer_, blocks, take));
  std::lock_guard lock(hot_->mutex_);
  for (const auto& [block, places] : wanted) {
    for (const size_t place : places) {
      hot_->cache_.Put(table_, ids[place], out + place * row_bytes);
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::engram_store
