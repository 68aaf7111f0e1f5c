#include "model/formats/encode.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "model/formats/scalar.h"
#include "model/kernels/bf16.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr float kInt8Max = 127.0f;
constexpr float kInt4Max = 7.0f;
constexpr float kAmaxMax = 0x1p127f;  // a larger one could be rounded up to infinity
constexpr float kFp8AmaxMin = 1e-4f;
constexpr float kFp4AmaxMin = 6.0f * 0x1p-126f;

absl::Status DoesNotFit(float value, const MatrixFormat& format) {
  return base::Error(
      base::Reason::kInvalidArgument,
      absl::StrFormat("the value %g cannot be stored as %s", value, FormatName(format)));
}

// Part of the rows that one scale covers.
struct Block {
  uint64_t row_begin, row_end;
  uint64_t column_begin, column_end;
};

absl::Status EncodePlain(const MatrixFormat& format, const float* rows, uint64_t count,
                         std::byte* values) {
  for (uint64_t i = 0; i < count; ++i) {
    if (format.values == ValueFormat::kF32) {
      std::memcpy(values + i * 4, rows + i, 4);
      continue;
    }
    const bool is_bf16 = format.values == ValueFormat::kBf16;
    const uint16_t half = is_bf16 ? NarrowBf16(rows[i]) : EncodeF16(rows[i]);
    if (!std::isfinite(is_bf16 ? WidenBf16(half) : DecodeF16(half))) {
      return DoesNotFit(rows[i], format);
    }
    std::memcpy(values + i * 2, &half, 2);
  }
  return absl::OkStatus();
}

// F16 of the quotient, never zero for a block that is not.
uint16_t GroupScale(float amax, float largest_code) {
  const uint16_t scale = EncodeF16(amax / largest_code);
  return scale == 0 && amax > 0 ? uint16_t{1} : scale;
}

// Stores the scale of a block at `to`, in its format, and returns the value that it decodes to.
float StoreScale(const MatrixFormat& format, float amax, std::byte* to) {
  if (format.values == ValueFormat::kInt8 || format.values == ValueFormat::kInt4) {
    const float largest = format.values == ValueFormat::kInt8 ? kInt8Max : kInt4Max;
    const uint16_t scale = GroupScale(amax, largest);
    std::memcpy(to, &scale, sizeof(scale));
    return DecodeF16(scale);
  }
  const bool fp8 = format.values == ValueFormat::kE4m3;
  const uint8_t power = fp8 ? CeilE8m0(std::max(amax, kFp8AmaxMin) / kE4m3Max)
                            : CeilE8m0(std::max(amax, kFp4AmaxMin) / kE2m1Max);
  const float scale = DecodeE8m0(power);
  if (format.scales == ScaleFormat::kF32) {
    std::memcpy(to, &scale, sizeof(scale));
  } else {
    std::memcpy(to, &power, sizeof(power));
  }
  return scale;
}

// Rounded to an integer in [−limit, limit].
int Rounded(float value, float limit) {
  return static_cast<int>(std::nearbyint(std::clamp(value, -limit, limit)));
}

void StoreNibble(std::byte* row, uint64_t column, uint8_t code) {
  std::byte& pair = row[column / 2];
  if (column % 2 == 0) {
    pair = static_cast<std::byte>(code);
  } else {
    pair |= static_cast<std::byte>(code << 4);
  }
}

// The same without a call of libm, for the form that models are quantised to when they load.
void EncodeInt8(const float* from, uint64_t count, float scale, std::byte* to) {
  constexpr float kMagic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  for (uint64_t c = 0; c < count; ++c) {
    const float code = std::clamp(from[c] / scale, -kInt8Max, kInt8Max) + kMagic;
    to[c] = static_cast<std::byte>(std::bit_cast<uint32_t>(code));
  }
}

void EncodeBlock(const MatrixFormat& format, const float* rows, uint64_t columns,
                 const Block& block, float scale, std::byte* values) {
  const uint64_t row_bytes = format.RowBytes(columns);
  if (format.values == ValueFormat::kInt8 && scale != 0.0f) {
    for (uint64_t r = block.row_begin; r < block.row_end; ++r) {
      EncodeInt8(rows + r * columns + block.column_begin, block.column_end - block.column_begin,
                 scale, values + r * row_bytes + block.column_begin);
    }
    return;
  }
  for (uint64_t r = block.row_begin; r < block.row_end; ++r) {
    std::byte* to = values + r * row_bytes;
    for (uint64_t c = block.column_begin; c < block.column_end; ++c) {
      const float value = scale == 0.0f ? 0.0f : rows[r * columns + c] / scale;
      switch (format.values) {
        case ValueFormat::kE4m3:
          to[c] = static_cast<std::byte>(EncodeE4m3(value));
          break;
        case ValueFormat::kE2m1:
          StoreNibble(to, c, EncodeE2m1(value));
          break;
        case ValueFormat::kInt8:
          to[c] = static_cast<std::byte>(Rounded(value, kInt8Max));
          break;
        default:
          StoreNibble(to, c, static_cast<uint8_t>(Rounded(value, kInt4Max) + 8));
      }
    }
  }
}

}  // namespace

absl::Status EncodeRows(const MatrixFormat& format, const float* rows, uint64_t row_count,
                        uint64_t columns, std::byte* values, std::byte* scales) {
  for (uint64_t i = 0; i < row_count * columns; ++i) {
    if (!std::isfinite(rows[i])) return DoesNotFit(rows[i], format);
  }
  if (!format.is_quantised()) return EncodePlain(format, rows, row_count * columns, values);
  const uint64_t scale_columns = format.ScaleColumns(columns);
  const uint64_t scale_bytes =
      scale_columns == 0 ? 0 : format.ScaleRowBytes(columns) / scale_columns;
  for (uint64_t r = 0; r < row_count; r += format.block_rows) {
    for (uint64_t c = 0; c < columns; c += format.block_columns) {
      const Block block{r, std::min(r + format.block_rows, row_count), c,
                        std::min(c + format.block_columns, columns)};
      float amax = 0;
      for (uint64_t i = block.row_begin; i < block.row_end; ++i) {
        for (uint64_t k = block.column_begin; k < block.column_end; ++k) {
          amax = std::max(amax, std::fabs(rows[i * columns + k]));
        }
      }
      const uint64_t at = r / format.block_rows * scale_columns + c / format.block_columns;
      const float scale = StoreScale(format, amax, scales + at * scale_bytes);
      if (!std::isfinite(scale) || amax > kAmaxMax) return DoesNotFit(amax, format);
      EncodeBlock(format, rows, columns, block, scale, values);
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::model
