// Values and scales of any bytes: joined, they decode to finite numbers or are an error with a
// reason, and what decodes can be stored in every form and read again.
#include "model/formats/stored_matrix.h"

#include <cmath>
#include <vector>

#include "model/checkpoint_matrix.h"
#include "model/formats/encode.h"
#include "services/base/status.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

using model::MatrixFormat;
using model::ScaleFormat;
using model::StoredMatrix;
using model::TensorType;
using model::ValueFormat;

constexpr TensorType kValues[] = {TensorType::kF8E4m3, TensorType::kI8,   TensorType::kU8,
                                  TensorType::kF16,    TensorType::kBf16, TensorType::kF32};
constexpr TensorType kScales[] = {TensorType::kF32, TensorType::kF16, TensorType::kF8E8m0};

bool AllFinite(const std::vector<float>& values) {
  for (const float v : values) {
    if (!std::isfinite(v)) return false;
  }
  return true;
}

// One of the shapes that may go with `columns` elements of a row, chosen by the input.
uint64_t Cut(uint64_t size, uint8_t choice) {
  constexpr uint64_t kParts[] = {1, 2, 32, 128};
  const uint64_t part = kParts[choice % 4];
  return (size + part - 1) / part;
}

void EncodeAgain(const std::vector<float>& values, uint64_t rows, uint64_t columns) {
  for (const MatrixFormat& format : {MatrixFormat{ValueFormat::kE4m3, ScaleFormat::kF32, 128, 128},
                                     MatrixFormat{ValueFormat::kE4m3, ScaleFormat::kE8m0, 32, 32},
                                     MatrixFormat{ValueFormat::kE2m1, ScaleFormat::kE8m0, 1, 32},
                                     MatrixFormat{ValueFormat::kInt8, ScaleFormat::kF16, 1, 32},
                                     MatrixFormat{ValueFormat::kInt4, ScaleFormat::kF16, 1, 128}}) {
    std::vector<std::byte> codes(rows * format.RowBytes(columns));
    std::vector<std::byte> scales(format.ScaleRows(rows) * format.ScaleRowBytes(columns));
    const absl::Status status =
        EncodeRows(format, values.data(), rows, columns, codes.data(), scales.data());
    if (!status.ok()) {
      Require(base::ReasonOf(status) == base::Reason::kInvalidArgument, "reason of encoding");
      continue;
    }
    std::vector<float> back(values.size());
    Require(model::DecodeRows({"w", "", format, rows, columns, codes, scales}, 0, rows, back.data())
                .ok(),
            "what was encoded decodes");
    Require(AllFinite(back), "and is finite");
  }
}

void Check(std::span<const std::byte> input) {
  if (input.size() < 4) return;
  const auto at = [&](size_t i) { return static_cast<uint8_t>(input[i]); };
  const TensorType type = kValues[at(0) % 6];
  const TensorType scale_type = kScales[at(1) % 3];
  const uint64_t rows = 1 + at(2) % 40;
  const uint64_t columns = 1 + at(3) % 200;
  const bool packed = type == TensorType::kU8 || scale_type == TensorType::kF8E8m0;
  model::TensorView values{"x.weight", type, {rows, columns}, {}, "f"};
  if (packed && type != TensorType::kF8E4m3) values.shape[1] = Cut(columns, 1);
  const uint64_t value_bytes = rows * values.shape[1] * TensorTypeBytes(type);
  model::TensorView scales{"x.scale", scale_type, {}, {}, "f"};
  scales.shape = {Cut(rows, at(1) / 3), Cut(columns, at(1) / 12)};
  const uint64_t scale_bytes = scales.shape[0] * scales.shape[1] * TensorTypeBytes(scale_type);
  if (input.size() - 4 < value_bytes + scale_bytes) return;
  values.bytes = input.subspan(4, value_bytes);
  scales.bytes = input.subspan(4 + value_bytes, scale_bytes);
  const bool plain =
      type == TensorType::kF16 || type == TensorType::kBf16 || type == TensorType::kF32;
  const auto matrix = JoinMatrix(values, plain ? nullptr : &scales, rows, columns, {});
  if (!matrix.ok()) {
    Require(base::ReasonOf(matrix.status()) == base::Reason::kBadCheckpoint, "reason of joining");
    return;
  }
  std::vector<float> decoded(rows * columns);
  const absl::Status status = DecodeRows(*matrix, 0, rows, decoded.data());
  Require(status.ok() || base::ReasonOf(status) == base::Reason::kBadCheckpoint, "reason");
  if (!status.ok()) return;
  Require(plain || AllFinite(decoded), "quantised forms decode to finite numbers");
  EncodeAgain(decoded, rows, columns);
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  expertmesh::fuzz::Check(expertmesh::fuzz::Bytes(data, size));
  return 0;
}
