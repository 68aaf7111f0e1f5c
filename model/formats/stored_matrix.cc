#include "model/formats/stored_matrix.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/formats/scalar.h"
#include "model/kernels/bf16.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

template <class T>
T Load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

const std::array<float, 256> kE4m3Values = [] {
  std::array<float, 256> values{};
  for (size_t code = 0; code < 256; ++code) values[code] = DecodeE4m3(static_cast<uint8_t>(code));
  return values;
}();

uint64_t ScaleBytes(ScaleFormat format) {
  switch (format) {
    case ScaleFormat::kNone:
      return 0;
    case ScaleFormat::kF32:
      return 4;
    case ScaleFormat::kF16:
      return 2;
    case ScaleFormat::kE8m0:
      return 1;
  }
  return 0;
}

float ScaleAt(const StoredMatrix& m, uint64_t row, uint64_t block) {
  const std::byte* p = m.scales.data() +
                       row / m.format.block_rows * m.format.ScaleRowBytes(m.columns) +
                       block * ScaleBytes(m.format.scales);
  switch (m.format.scales) {
    case ScaleFormat::kNone:
      return 1.0f;
    case ScaleFormat::kF32:
      return Load<float>(p);
    case ScaleFormat::kF16:
      return DecodeF16(Load<uint16_t>(p));
    case ScaleFormat::kE8m0:
      return DecodeE8m0(Load<uint8_t>(p));
  }
  return 1.0f;
}

const std::array<float, 16> kE2m1Values = [] {
  std::array<float, 16> values{};
  for (size_t code = 0; code < 16; ++code) values[code] = DecodeE2m1(static_cast<uint8_t>(code));
  return values;
}();

constexpr std::array<float, 16> kInt4Values = {-8, -7, -6, -5, -4, -3, -2, -1,
                                               0,  1,  2,  3,  4,  5,  6,  7};

// Packed 4-bit codes of columns [begin, end); begin is even, as the blocks of these forms are.
void DecodeNibbles(const std::array<float, 16>& values, const std::byte* row, uint64_t begin,
                   uint64_t end, float* out) {
  for (uint64_t c = begin; c + 1 < end; c += 2) {
    const auto pair = static_cast<uint8_t>(row[c / 2]);
    out[c] = values[pair & 15u];
    out[c + 1] = values[pair >> 4];
  }
  if ((end - begin) % 2 == 1) out[end - 1] = values[static_cast<uint8_t>(row[end / 2]) & 15u];
}

// Columns [begin, end) of one row without their scale.
void DecodeValues(ValueFormat format, const std::byte* row, uint64_t begin, uint64_t end,
                  float* out) {
  switch (format) {
    case ValueFormat::kF32:
      std::memcpy(out + begin, row + begin * 4, (end - begin) * 4);
      return;
    case ValueFormat::kF16:
      for (uint64_t c = begin; c < end; ++c) out[c] = DecodeF16(Load<uint16_t>(row + c * 2));
      return;
    case ValueFormat::kBf16:
      for (uint64_t c = begin; c < end; ++c) out[c] = WidenBf16(Load<uint16_t>(row + c * 2));
      return;
    case ValueFormat::kE4m3:
      for (uint64_t c = begin; c < end; ++c) out[c] = kE4m3Values[static_cast<uint8_t>(row[c])];
      return;
    case ValueFormat::kE2m1:
      return DecodeNibbles(kE2m1Values, row, begin, end, out);
    case ValueFormat::kInt8:
      for (uint64_t c = begin; c < end; ++c) out[c] = Load<int8_t>(row + c);
      return;
    case ValueFormat::kInt4:
      return DecodeNibbles(kInt4Values, row, begin, end, out);
  }
}

bool AllFinite(const float* values, uint64_t count) {
  uint32_t bad = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(values[i]) & 0x7FFFFFFFu;
    bad |= magnitude >= 0x7F800000u ? 1u : 0u;
  }
  return bad == 0;
}

absl::Status NotFinite(const StoredMatrix& m, uint64_t row, const float* decoded) {
  uint64_t column = 0;
  while (column + 1 < m.columns && std::isfinite(decoded[column])) ++column;
  const float scale = ScaleAt(m, row, column / m.format.block_columns);
  std::string why = absl::StrFormat("overflows float32 (its scale is %g)", scale);
  if (!std::isfinite(scale)) {
    why = absl::StrCat("has a scale that is ", std::isnan(scale) ? "not a number" : "infinite");
  } else if (m.format.values == ValueFormat::kE4m3 && std::isnan(decoded[column])) {
    why = "is the NaN code of F8_E4M3";
  }
  return base::Error(
      base::Reason::kBadCheckpoint,
      absl::StrCat(m.file, m.file.empty() ? "" : ": ", "tensor \"", absl::Utf8SafeCEscape(m.name),
                   "\": element [", row, ", ", column, "] ", why));
}

}  // namespace

uint64_t MatrixFormat::RowBytes(uint64_t columns) const {
  switch (values) {
    case ValueFormat::kF32:
      return columns * 4;
    case ValueFormat::kF16:
    case ValueFormat::kBf16:
      return columns * 2;
    case ValueFormat::kE4m3:
    case ValueFormat::kInt8:
      return columns;
    case ValueFormat::kE2m1:
    case ValueFormat::kInt4:
      return (columns + 1) / 2;
  }
  return 0;
}

uint64_t MatrixFormat::ScaleRowBytes(uint64_t columns) const {
  return ScaleColumns(columns) * ScaleBytes(scales);
}

std::string FormatName(const MatrixFormat& format) {
  constexpr std::array<const char*, 7> kNames = {"F32", "F16",  "BF16", "fp8",
                                                 "fp4", "int8", "int4"};
  const char* name = kNames[static_cast<size_t>(format.values)];
  if (!format.is_quantised()) return name;
  return absl::StrCat(name, " ", format.block_rows, "x", format.block_columns);
}

void DecodeScales(const StoredMatrix& matrix, uint64_t row, float* out) {
  const uint64_t blocks = matrix.format.ScaleColumns(matrix.columns);
  for (uint64_t block = 0; block < blocks; ++block) out[block] = ScaleAt(matrix, row, block);
}

absl::Status DecodeRows(const StoredMatrix& m, uint64_t row_begin, uint64_t row_count, float* out) {
  const uint64_t row_bytes = m.format.RowBytes(m.columns);
  for (uint64_t row = row_begin; row < row_begin + row_count; ++row, out += m.columns) {
    const std::byte* from = m.values.data() + row * row_bytes;
    if (!m.format.is_quantised()) {
      DecodeValues(m.format.values, from, 0, m.columns, out);
      continue;
    }
    for (uint64_t begin = 0; begin < m.columns; begin += m.format.block_columns) {
      const uint64_t end = std::min(begin + m.format.block_columns, m.columns);
      const float scale = ScaleAt(m, row, begin / m.format.block_columns);
      DecodeValues(m.format.values, from, begin, end, out);
      for (uint64_t c = begin; c < end; ++c) out[c] *= scale;
    }
    if (!AllFinite(out, m.columns)) return NotFinite(m, row, out);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::model
