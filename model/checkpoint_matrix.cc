#include "model/checkpoint_matrix.h"

#include <algorithm>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

std::string TypeAndShape(TensorType type, const std::vector<uint64_t>& shape) {
  return absl::StrCat(std::string(TensorTypeName(type)), " [", absl::StrJoin(shape, ", "), "]");
}

absl::Status Bad(const TensorView& tensor, const std::string& text) {
  return base::Error(
      base::Reason::kBadCheckpoint,
      absl::StrCat(tensor.file, ": tensor \"", absl::Utf8SafeCEscape(tensor.name), "\": ", text));
}

absl::Status Unexpected(const TensorView& tensor, const std::string& expected) {
  return Bad(tensor, absl::StrCat("expected ", expected, ", found ",
                                  TypeAndShape(tensor.type, tensor.shape)));
}

std::optional<ScaleFormat> ScaleFormatOf(TensorType type) {
  if (type == TensorType::kF32) return ScaleFormat::kF32;
  if (type == TensorType::kF16) return ScaleFormat::kF16;
  if (type == TensorType::kF8E8m0) return ScaleFormat::kE8m0;
  return std::nullopt;
}

// The forms that values of this type may have, the blocks still open. Empty for other types.
std::vector<MatrixFormat> FormsOf(TensorType values) {
  switch (values) {
    case TensorType::kF8E4m3:
      return {{ValueFormat::kE4m3, ScaleFormat::kF32, 0, 0},
              {ValueFormat::kE4m3, ScaleFormat::kE8m0, 0, 0}};
    case TensorType::kI8:
      return {{ValueFormat::kE2m1, ScaleFormat::kE8m0, 1, kFp4Block},
              {ValueFormat::kInt8, ScaleFormat::kF16, 1, 0}};
    case TensorType::kU8:
      return {{ValueFormat::kInt4, ScaleFormat::kF16, 1, 0}};
    default:
      return {};
  }
}

std::string ScaleTypesOf(TensorType values) {
  if (values == TensorType::kF8E4m3) return "F32 or F8_E8M0";
  return values == TensorType::kI8 ? "F16 (int8) or F8_E8M0 (fp4)" : "F16 (int4)";
}

// The format with the block size that the config states, or else 128 or 32, whichever fits the
// shape of the scales (if both do, they decode alike). Tables of the memory have one scale for 32
// columns of a row beside any other blocks.
std::optional<MatrixFormat> WithBlocks(MatrixFormat format, const Quantization& quantization,
                                       uint64_t rows, uint64_t columns, const TensorView& scales) {
  const bool fp8 = format.values == ValueFormat::kE4m3;
  for (const uint64_t size : {128, 32}) {
    MatrixFormat candidate = format;
    if (fp8) {
      candidate.block_rows = quantization.block_rows > 0 ? quantization.block_rows : size;
      candidate.block_columns = quantization.block_columns > 0 ? quantization.block_columns : size;
    } else if (format.block_columns == 0) {
      candidate.block_columns = quantization.group_size > 0 ? quantization.group_size : size;
    }
    const std::vector<uint64_t> shape = {candidate.ScaleRows(rows),
                                         candidate.ScaleColumns(columns)};
    if (scales.shape == shape) return candidate;
  }
  if (format.values == ValueFormat::kE4m3 && format.scales == ScaleFormat::kE8m0) {
    format.block_rows = 1;
    format.block_columns = kTableBlock;
    if (scales.shape == std::vector<uint64_t>{rows, format.ScaleColumns(columns)}) return format;
  }
  return std::nullopt;
}

absl::Status WrongScales(const TensorView& scales, const MatrixFormat& format,
                         const Quantization& quantization, uint64_t rows, uint64_t columns) {
  std::string blocks = "blocks of 128 or 32";
  if (format.values == ValueFormat::kE2m1) blocks = "groups of 32";
  if (format.values == ValueFormat::kE4m3 && quantization.block_rows > 0) {
    blocks = absl::StrCat("blocks of ", quantization.block_rows, " x ", quantization.block_columns,
                          " (weight_block_size)");
  } else if (format.block_columns == 0 && quantization.group_size > 0) {
    blocks = absl::StrCat("groups of ", quantization.group_size, " (group_size)");
  }
  return Unexpected(scales,
                    absl::StrCat("scales of ", blocks, " over [", rows, ", ", columns, "]"));
}

absl::StatusOr<StoredMatrix> JoinPlain(const TensorView& values, const TensorView* scales,
                                       uint64_t rows, uint64_t columns) {
  const std::vector<uint64_t> shape = {rows, columns};
  const bool is_float = values.type == TensorType::kF32 || values.type == TensorType::kBf16 ||
                        values.type == TensorType::kF16;
  if (!is_float || values.shape != shape) {
    return Unexpected(
        values, absl::StrCat("F32, BF16, F16, F8_E4M3, I8 (int8, packed fp4) or U8 (packed int4) "
                             "of [",
                             rows, ", ", columns, "]"));
  }
  if (scales) {
    return Bad(values, absl::StrCat(std::string(TensorTypeName(values.type)),
                                    " values have no scale, yet there is \"",
                                    absl::Utf8SafeCEscape(scales->name), "\""));
  }
  return PlainMatrix(values);
}

}  // namespace

std::vector<std::string> ScaleNames(std::string_view name) {
  const std::string full(name);
  const std::string stem =
      name.ends_with(".weight") ? full.substr(0, full.size() - sizeof("weight") + 1) : full + ".";
  return {full + "_scale_inv", stem + "scale", full + "_scale"};
}

absl::StatusOr<StoredMatrix> JoinMatrix(const TensorView& values, const TensorView* scales,
                                        uint64_t rows, uint64_t columns,
                                        const Quantization& quantization) {
  const std::vector<MatrixFormat> forms = FormsOf(values.type);
  if (forms.empty()) return JoinPlain(values, scales, rows, columns);
  if (!scales) {
    return Bad(values,
               absl::StrCat(std::string(TensorTypeName(values.type)),
                            " values need a scale: ", ScaleTypesOf(values.type), " in one of \"",
                            absl::StrJoin(ScaleNames(values.name), "\", \""), "\""));
  }
  const std::optional<ScaleFormat> scale_format = ScaleFormatOf(scales->type);
  const auto form = std::find_if(forms.begin(), forms.end(), [&](const MatrixFormat& f) {
    return scale_format && f.scales == *scale_format;
  });
  if (form == forms.end()) return Unexpected(*scales, ScaleTypesOf(values.type));
  const uint64_t width = form->RowBytes(columns);  // each of these types has one byte
  if (values.shape != std::vector<uint64_t>{rows, width}) {
    return Unexpected(values, TypeAndShape(values.type, {rows, width}));
  }
  const auto format = WithBlocks(*form, quantization, rows, columns, *scales);
  if (!format) return WrongScales(*scales, *form, quantization, rows, columns);
  return StoredMatrix{values.name, values.file,  *format,      rows,
                      columns,     values.bytes, scales->bytes};
}

StoredMatrix PlainMatrix(const TensorView& view) {
  MatrixFormat format = kPlainF32;
  if (view.type == TensorType::kBf16) format = kPlainBf16;
  if (view.type == TensorType::kF16) format = kPlainF16;
  const uint64_t rows = view.shape.size() == 2 ? view.shape[0] : 1;
  const uint64_t columns = view.shape.empty() ? 1 : view.shape.back();
  return {view.name, view.file, format, rows, columns, view.bytes, {}};
}

bool MayBeQuantised(const TensorSpec& spec) {
  constexpr std::string_view kParts[] = {
      "mla", "indexer", "dense_ffn", "routed_experts", "shared_experts", "engram_projections"};
  constexpr std::string_view kNever[] = {".indexer.weights_proj.weight", ".engram.q_weight",
                                         ".engram.k_weight"};
  const bool never =
      std::any_of(std::begin(kNever), std::end(kNever),
                  [&](std::string_view ending) { return spec.name.ends_with(ending); });
  return !never && spec.shape.size() == 2 && !spec.always_f32 &&
         std::find(std::begin(kParts), std::end(kParts), spec.part) != std::end(kParts);
}

}  // namespace expertmesh::model
