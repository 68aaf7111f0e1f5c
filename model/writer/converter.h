// A model directory rewritten in another stored form: what `expertmesh model convert` makes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/formats/stored_matrix.h"

namespace expertmesh::model {

enum class TargetFormat { kF32, kBf16, kFp8Block128, kFp8Block32, kFp4, kInt8, kInt4 };

/// "f32", "bf16", "fp8-128", "fp8-32", "fp4", "int8" or "int4"; kInvalidArgument listing them
/// otherwise.
absl::StatusOr<TargetFormat> ParseTargetFormat(std::string_view name);
std::vector<std::string> TargetFormatNames();

struct ConvertOptions {
  std::string from;
  std::string to;  // must not exist
  TargetFormat format = TargetFormat::kBf16;
  uint64_t group_size = 32;  // of int8 and int4: 32 or 128
  uint64_t shard_bytes = 0;  // as WriteOptions, and so are the rest
  int threads = 1;
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> progress;
  std::function<bool()> cancelled;
};

/// What the new form does to the tensors of one part (TensorSpec::part) that were stored anew.
struct ConversionError {
  std::string part;
  std::string format;  // FormatName of the new form
  uint64_t elements = 0;
  double max_abs = 0;        // largest |new − old|
  double squared_error = 0;  // Σ (new − old)²
  double squared_value = 0;  // Σ old²

  /// sqrt(Σ (new − old)² / Σ old²), 0 where both are.
  double RelativeRms() const;
};

/// Reads every tensor through the checks of the loader and writes it tensor by tensor, aside, then
/// renames. f32 and bf16 store every tensor of the model so, but F32 where docs/model-family.md §3
/// wants it. The other formats store the tensors it marks with q in the new form, and leave the
/// rest as they were (decoded to torch_dtype if they were quantised although they may not be); fp4
/// is for routed experts, the others of its tensors become fp8-128. Tensors that the model does not
/// use are copied. Other files of the directory are copied, config.json gets quantization_config.
/// Returns errors by part and format. Memory: a few buffers per thread, whatever the size.
absl::StatusOr<std::vector<ConversionError>> ConvertModel(const ConvertOptions& options);

}  // namespace expertmesh::model
