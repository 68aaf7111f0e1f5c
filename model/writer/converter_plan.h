// What a conversion writes, decided before anything is written.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/writer/converter.h"
#include "model/writer/safetensors_layout.h"

namespace expertmesh::model {

/// One weight (values, and scales right behind them) or one tensor that is copied as it is.
struct ConvertItem {
  size_t tensor = 0;                 // index of the first in ConvertPlan::tensors
  std::span<const std::byte> bytes;  // to copy, if there is no source
  std::optional<StoredMatrix> source;
  MatrixFormat target;  // with a source
  std::string part;     // with a source
};

struct ConvertPlan {
  std::vector<StoredTensor> tensors;
  std::vector<ConvertItem> items;
  uint64_t source_bytes = 0;
};

/// Views of the plan live as long as the checkpoint.
absl::StatusOr<ConvertPlan> PlanConversion(const Checkpoint& checkpoint, const Config& config,
                                           TargetFormat format, uint64_t group_size);

/// config.json of the new directory: the old text with quantization_config, expert_dtype and the
/// dtype keys as the format wants them; all other keys stay, in their order.
absl::StatusOr<std::string> ConvertedConfig(const std::string& text, TargetFormat format,
                                            uint64_t group_size);

}  // namespace expertmesh::model
