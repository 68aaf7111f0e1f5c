#include "model/kernels/pack_fp8.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "model/kernels/fp8_layout.h"
#include "model/kernels/kernel_table.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

// False too where one is no number.
bool AllScalesFit(const StoredMatrix& m) {
  std::vector<float> scales(m.format.ScaleColumns(m.columns));
  for (uint64_t row = 0; row < m.rows; row += m.format.block_rows) {
    DecodeScales(m, row, scales.data());
    for (const float scale : scales) {
      if (!(std::fabs(scale) < kFp8ScaleMax)) return false;
    }
  }
  return true;
}

}  // namespace

bool FitsFp8Panels(const StoredMatrix& matrix) {
  const MatrixFormat& format = matrix.format;
  return format.values == ValueFormat::kE4m3 && format.is_quantised() &&
         format.block_rows % kPanelOutputs == 0 && format.block_columns % kFp8Group == 0 &&
         AllScalesFit(matrix);
}

absl::Status PackFp8Rows(const StoredMatrix& from, size_t row_begin, size_t rows, PackedMatrix& to,
                         size_t output_begin) {
  if (row_begin % kPanelOutputs != 0 || output_begin % kPanelOutputs != 0) {
    std::fprintf(stderr, "fp8 rows %zu to outputs %zu: neither begins a panel\n", row_begin,
                 output_begin);
    std::abort();
  }
  std::vector<float> decoded(to.inputs);
  std::vector<float> scales(from.format.ScaleColumns(from.columns));
  for (size_t r = 0; r < rows; ++r) {
    const size_t row = row_begin + r;
    const size_t output = output_begin + r;
    EM_RETURN_IF_ERROR(DecodeRows(from, row, 1, decoded.data()));  // finds what is no number
    std::byte* const panel = to.panels + output / kPanelOutputs * to.panel_bytes();
    if (output % kPanelOutputs == 0) {
      DecodeScales(from, row, scales.data());
      auto* groups = reinterpret_cast<float*>(panel);
      for (size_t k = 0; k < to.inputs; k += kFp8Group) {
        *groups++ = scales[k / from.format.block_columns] * kFp8ScaleFactor;
      }
    }
    const std::byte* codes = from.values.data() + row * from.format.RowBytes(from.columns);
    std::byte* const out = panel + Fp8ScaleBytes(to.inputs);
    for (size_t k = 0; k < to.inputs; ++k) {
      const size_t quad = k / kFp8Quad * kFp8Quad * kPanelOutputs;
      out[quad + Fp8CodeAt(k % kFp8Quad, output % kPanelOutputs)] = codes[k];
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::model
