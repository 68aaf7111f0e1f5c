#include "engram-store/importer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/config.h"
#include "model/formats/table_row.h"
#include "model/tables/row_record.h"
#include "services/base/status.h"

namespace expertmesh::engram_store {
namespace {

using base::Error;
using base::Reason;

constexpr uint64_t kReleaseBlocks = 4096;  // blocks read before their pages are given back

absl::StatusOr<RowFormat> RowFormatOf(const model::StoredMatrix& table) {
  for (const RowFormat format : {RowFormat::kF32, RowFormat::kBf16, RowFormat::kE4m3E8m0}) {
    if (MatrixFormatOf(format) == table.format) return format;
  }
  return Error(Reason::kBadCheckpoint,
               absl::StrCat(table.file, ": tensor \"", table.name,
                            "\": expected F32, BF16 or F8_E4M3 with a scale for 32 columns, found ",
                            model::FormatName(table.format)));
}

}  // namespace

model::MatrixFormat MatrixFormatOf(RowFormat format) {
  if (format == RowFormat::kF32) return model::kPlainF32;
  return format == RowFormat::kBf16 ? model::kPlainBf16 : model::kFp8TableRows;
}

absl::StatusOr<CheckpointTables> CheckpointTables::Open(const std::string& directory,
                                                        const model::ConfigOverrides& overrides) {
  CheckpointTables tables;
  EM_ASSIGN_OR_RETURN(const model::Config config, model::LoadConfig(directory, overrides));
  if (!config.engram) return tables;
  EM_ASSIGN_OR_RETURN(tables.checkpoint_, model::Checkpoint::Open(directory));
  tables.shape_.width = config.engram->head_dim;
  for (size_t place = 0; place < config.engram->layer_ids.size(); ++place) {
    const uint32_t layer = config.engram->layer_ids[place];
    EM_ASSIGN_OR_RETURN(
        model::StoredMatrix table,
        tables.checkpoint_->Matrix(absl::StrCat("model.layers.", layer, ".engram.embed.weight"),
                                   config.engram->num_embeddings[place], config.engram->head_dim));
    EM_ASSIGN_OR_RETURN(const RowFormat format, RowFormatOf(table));
    if (place > 0 && format != tables.shape_.format) {
      return Error(Reason::kBadCheckpoint,
                   absl::StrCat(table.file, ": tensor \"", table.name,
                                "\": the tables of the layers have different types"));
    }
    tables.shape_.format = format;
    tables.shape_.layers.push_back({layer, table.rows});
    tables.tables_.push_back(std::move(table));
  }
  EM_RETURN_IF_ERROR(tables.shape_.Check());
  return tables;
}

absl::Status CheckpointTables::Read(const UseBlock& use, ContentSum& sum) const {
  const size_t record = shape_.record_bytes();
  std::vector<std::byte> records;
  std::vector<std::byte> row(shape_.row_bytes());
  for (size_t i = 0; i < tables_.size(); ++i) {
    const model::StoredMatrix& table = tables_[i];
    const TableShape::Layer& layer = shape_.layers[i];
    for (uint64_t block = 0; block < shape_.blocks(layer); ++block) {
      const uint64_t first = block * shape_.rows_per_block();
      const uint64_t count = shape_.rows_of_block(layer, block);
      records.resize(count * record);
      for (uint64_t r = 0; r < count; ++r) {
        const auto values =
            table.values.subspan((first + r) * shape_.value_bytes(), shape_.value_bytes());
        const auto scales =
            table.scales.subspan((first + r) * shape_.scale_bytes(), shape_.scale_bytes());
        std::copy(values.begin(), values.end(), row.begin());
        std::copy(scales.begin(), scales.end(), row.begin() + shape_.value_bytes());
        model::WriteRecord(layer.layer, first + r, row,
                           std::span(records).subspan(r * record, record));
      }
      sum.Add(layer.layer, block, records);
      EM_RETURN_IF_ERROR(use(layer.layer, block, records));
      if (block % kReleaseBlocks == kReleaseBlocks - 1) checkpoint_->Release(table);
    }
    checkpoint_->Release(table);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::engram_store
