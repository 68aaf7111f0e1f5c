#include "model/tables/table_shape.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr size_t kScaleColumns = 32;

absl::Status Bad(const std::string& why) {
  return base::Error(base::Reason::kInvalidArgument, absl::StrCat("shape of tables: ", why));
}

}  // namespace

absl::Status TableShape::Check() const {
  if (format != RowFormat::kF32 && format != RowFormat::kBf16 && format != RowFormat::kE4m3E8m0) {
    return Bad(absl::StrCat("row format ", static_cast<uint32_t>(format), " is not known"));
  }
  if (width == 0 || width > kWidthMax) {
    return Bad(absl::StrCat(width, " columns; 1 to ", kWidthMax));
  }
  if (layers.size() > kLayersMax) return Bad(absl::StrCat(layers.size(), " layers"));
  for (size_t i = 0; i < layers.size(); ++i) {
    if (i > 0 && layers[i].layer <= layers[i - 1].layer) return Bad("layers do not ascend");
    if (layers[i].rows == 0 || layers[i].rows > kRowsMax) {
      return Bad(absl::StrCat("layer ", layers[i].layer, " has ", layers[i].rows, " rows"));
    }
  }
  return absl::OkStatus();
}

size_t TableShape::value_bytes() const {
  const size_t each = format == RowFormat::kF32 ? 4 : format == RowFormat::kBf16 ? 2 : 1;
  return each * width;
}

size_t TableShape::scale_bytes() const {
  return format == RowFormat::kE4m3E8m0 ? (width + kScaleColumns - 1) / kScaleColumns : 0;
}

uint64_t TableShape::rows_per_block() const {
  return std::bit_floor(std::max<uint64_t>(1, kBlockBytesMax / record_bytes()));
}

uint64_t TableShape::blocks(const Layer& layer) const {
  return (layer.rows + rows_per_block() - 1) / rows_per_block();
}

uint64_t TableShape::rows_of_block(const Layer& layer, uint64_t block) const {
  return std::min(rows_per_block(), layer.rows - block * rows_per_block());
}

const TableShape::Layer* TableShape::Find(uint32_t layer) const {
  const auto it = std::find_if(layers.begin(), layers.end(),
                               [&](const Layer& table) { return table.layer == layer; });
  return it == layers.end() ? nullptr : &*it;
}

uint64_t TableShape::total_rows() const {
  uint64_t rows = 0;
  for (const Layer& layer : layers) rows += layer.rows;
  return rows;
}

}  // namespace expertmesh::model
