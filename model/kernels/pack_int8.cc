#include "model/kernels/pack_int8.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "model/formats/encode.h"
#include "model/formats/scalar.h"
#include "model/kernels/bf16.h"
#include "model/kernels/int8_layout.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr MatrixFormat kInt8Form = {ValueFormat::kInt8, ScaleFormat::kF16, 1, kInt8Group};
constexpr uint16_t kF16Exponent = 0x7C00;  // all ones: infinity or NaN

absl::Status Bad(const StoredMatrix& matrix, const std::string& text) {
  return base::Error(base::Reason::kBadCheckpoint,
                     absl::StrCat(matrix.file, matrix.file.empty() ? "" : ": ", "tensor \"",
                                  absl::Utf8SafeCEscape(matrix.name), "\": ", text));
}

bool KeepsItsCodes(const MatrixFormat& f) {
  return (f.values == ValueFormat::kInt8 || f.values == ValueFormat::kInt4) &&
         f.scales == ScaleFormat::kF16 && f.block_rows == 1 && f.block_columns % kInt8Group == 0;
}

// Value `column` of a row of four-bit values.
int NibbleAt(const std::byte* row, uint64_t column) {
  const int pair = std::to_integer<int>(row[column / 2]);
  return column % 2 == 0 ? pair & 15 : pair >> 4;
}

void CopyCodes(const StoredMatrix& from, uint64_t row, Int8Row& out) {
  const std::byte* values = from.values.data() + row * from.format.RowBytes(from.columns);
  out.codes.resize(from.columns);
  if (from.format.values == ValueFormat::kInt8) {
    std::memcpy(out.codes.data(), values, from.columns);
    return;
  }
  for (uint64_t c = 0; c < from.columns; ++c) {
    out.codes[c] = static_cast<int8_t>(NibbleAt(values, c) - 8);
  }
}

// Larger ones could overflow in a sum of products before the row's scale is applied.
constexpr float kFp4ScaleMax = 0x1p100f;

// E8M0 to half of it in BF16, which is exact; false if one is too large or no number.
bool HalveScales(const StoredMatrix& from, uint64_t row, Int8Row& out) {
  const std::byte* scales = from.scales.data() + row * from.format.ScaleRowBytes(from.columns);
  out.scales.resize(Int8Groups(from.columns));
  for (size_t g = 0; g < out.scales.size(); ++g) {
    const float scale = DecodeE8m0(std::to_integer<uint8_t>(scales[g]));
    if (!(scale <= kFp4ScaleMax)) return false;
    out.scales[g] = NarrowBf16(scale * 0.5f);
  }
  return true;
}

// One scale per group of 32, whatever the file's group is; false if one is not finite.
bool CopyScales(const StoredMatrix& from, uint64_t row, Int8Row& out) {
  const std::byte* scales = from.scales.data() + row * from.format.ScaleRowBytes(from.columns);
  out.scales.resize(Int8Groups(from.columns));
  for (size_t g = 0; g < out.scales.size(); ++g) {
    const size_t at = g * kInt8Group / from.format.block_columns;
    std::memcpy(&out.scales[g], scales + at * sizeof(uint16_t), sizeof(uint16_t));
    if ((out.scales[g] & kF16Exponent) == kF16Exponent) return false;
  }
  return true;
}

// Quads 2p and 2p + 1 of a group share the bytes [64] of place p.
void StoreFourBitGroup(std::span<const int8_t> codes, Dtype dtype, std::byte* bytes, size_t lane) {
  for (size_t k = 0; k < codes.size(); ++k) {
    const auto nibble = static_cast<uint8_t>(dtype == Dtype::kInt4 ? codes[k] + 8 : codes[k]);
    const size_t quad = k / 4;
    std::byte& byte = bytes[quad / 2 * kInt8QuadBytes + lane * 4 + k % 4];
    byte = quad % 2 == 0 ? (byte & std::byte{0xF0}) | std::byte{nibble}
                         : (byte & std::byte{0x0F}) | static_cast<std::byte>(nibble << 4);
  }
}

void StoreInt8Group(std::span<const int8_t> codes, std::byte* bytes, size_t lane) {
  for (size_t k = 0; k < codes.size(); ++k) {
    bytes[k / 4 * kInt8QuadBytes + lane * 4 + k % 4] =
        static_cast<std::byte>(codes[k] + kInt8Offset);
  }
}

}  // namespace

absl::Status QuantiseInt8Row(const StoredMatrix& from, std::span<const float> values,
                             Int8Row& out) {
  out.codes.resize(values.size());
  out.scales.resize(Int8Groups(values.size()));
  const absl::Status status = EncodeRows(kInt8Form, values.data(), 1, values.size(),
                                         reinterpret_cast<std::byte*>(out.codes.data()),
                                         reinterpret_cast<std::byte*>(out.scales.data()));
  return status.ok() ? status : Bad(from, std::string(status.message()));
}

absl::Status ReadInt8Row(const StoredMatrix& from, uint64_t row, Int8Row& out) {
  if (KeepsItsCodes(from.format) && CopyScales(from, row, out)) {
    CopyCodes(from, row, out);
    return absl::OkStatus();
  }
  out.values.resize(from.columns);
  EM_RETURN_IF_ERROR(DecodeRows(from, row, 1, out.values.data()));
  return QuantiseInt8Row(from, out.values, out);
}

Dtype Int8WeightDtype(const MatrixFormat& stored) {
  if (stored.values == ValueFormat::kInt4 && KeepsItsCodes(stored)) return Dtype::kInt4;
  const bool fp4 = stored.values == ValueFormat::kE2m1 && stored.scales == ScaleFormat::kE8m0 &&
                   stored.block_rows == 1 && stored.block_columns == kInt8Group;
  return fp4 ? Dtype::kFp4 : Dtype::kInt8;
}

absl::Status ReadFourBitRow(const StoredMatrix& from, uint64_t row, Int8Row& out) {
  const bool fp4 = from.format.values == ValueFormat::kE2m1;
  if (!(fp4 ? HalveScales(from, row, out) : CopyScales(from, row, out))) {
    out.values.resize(from.columns);
    EM_RETURN_IF_ERROR(DecodeRows(from, row, 1, out.values.data()));  // names the element
    return Bad(from, absl::StrCat("a scale of row ", row, " is beyond 2^100"));
  }
  if (!fp4) {
    CopyCodes(from, row, out);
    return absl::OkStatus();
  }
  const std::byte* values = from.values.data() + row * from.format.RowBytes(from.columns);
  out.codes.resize(from.columns);
  for (uint64_t c = 0; c < from.columns; ++c) {
    out.codes[c] = static_cast<int8_t>(NibbleAt(values, c));
  }
  return absl::OkStatus();
}

void StoreInt8Row(const Int8Row& row, size_t output, PackedMatrix& to) {
  std::byte* panel = to.panels + output / 16 * to.panel_bytes();
  const size_t lane = output % 16;
  const size_t group_bytes = Int8GroupBytes(to.dtype);
  for (size_t g = 0; g < row.scales.size(); ++g) {
    std::byte* block = panel + g / 2 * Int8BlockBytes(to.dtype);
    std::memcpy(block + g % 2 * kInt8ScaleBytes + lane * sizeof(uint16_t), &row.scales[g],
                sizeof(uint16_t));
    std::byte* bytes = block + 2 * kInt8ScaleBytes + g % 2 * group_bytes;
    const size_t begin = g * kInt8Group;
    const auto codes =
        std::span(row.codes).subspan(begin, std::min(kInt8Group, row.codes.size() - begin));
    if (IsFourBit(to.dtype)) {
      StoreFourBitGroup(codes, to.dtype, bytes, lane);
    } else {
      StoreInt8Group(codes, bytes, lane);
    }
  }
}

}  // namespace expertmesh::model
