#include "model/formats/table_row.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "model/formats/encode.h"
#include "services/base/status.h"

namespace expertmesh::model {

bool IsTableFormat(const MatrixFormat& format) {
  return format == kPlainF32 || format == kPlainBf16 || format == kFp8TableRows;
}

TableRowCodec::TableRowCodec(const MatrixFormat& format, size_t width)
    : value_bytes_(format.RowBytes(width)),
      scale_bytes_(format.is_quantised() ? format.ScaleRowBytes(width) : 0) {
  matrix_.name = "row";
  matrix_.file = "table";
  matrix_.format = format;
  matrix_.rows = 1;
  matrix_.columns = width;
}

absl::Status TableRowCodec::Decode(std::span<const std::byte> row, float* out) {
  matrix_.values = row.first(value_bytes_);
  matrix_.scales = row.subspan(value_bytes_, scale_bytes_);
  return DecodeRows(matrix_, 0, 1, out);
}

absl::Status TableRowCodec::Encode(const float* values, std::span<std::byte> row) const {
  for (size_t i = 0; i < width(); ++i) {
    if (!std::isfinite(values[i])) {
      return base::Error(base::Reason::kNonFinite, "a row of a table holds a value not finite");
    }
  }
  return EncodeRows(matrix_.format, values, 1, width(), row.data(), row.data() + value_bytes_);
}

}  // namespace expertmesh::model
