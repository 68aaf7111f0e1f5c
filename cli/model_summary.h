// What a model directory holds, counted from its config and checked against its weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"

namespace expertmesh::cli {

/// One row of the table. `active` = weights used for one decoded token: k of E routed experts, the
/// head, not the embedding unless it is the head (docs/model-family.md §6).
struct PartSize {
  std::string name;  // TensorSpec::part
  uint64_t parameters = 0;
  uint64_t active = 0;
  uint64_t bytes = 0;  // as stored
};

/// Bytes stored in one form, scales included.
struct FormatSize {
  std::string name;  // model::FormatName: "F32", "fp8 128x128"
  uint64_t bytes = 0;
};

struct ModelSummary {
  std::string directory;
  model::Config config;
  std::string revision;
  std::vector<PartSize> parts;  // in the order of docs/model-family.md §6; absent parts left out
  PartSize total;
  std::vector<FormatSize> formats;  // by bytes, most first
  uint64_t unused_tensors = 0;      // in the files, but not of this model (e.g. a prediction layer)
  uint64_t unused_bytes = 0;
  uint64_t kv_elements_per_token = 0;
};

/// Parameters and KV elements by the config alone; bytes and revision stay 0 and empty.
ModelSummary CountParameters(const model::Config& config);

/// Opens the directory and checks the shape and type of every tensor.
absl::StatusOr<ModelSummary> SummarizeModel(const std::string& directory,
                                            const model::ConfigOverrides& overrides = {});

/// 1114048 → "1,114,048".
std::string WithCommas(uint64_t number);
/// "int8 1x32 1,044,480 bytes, F32 300,000 bytes".
std::string FormatsText(const ModelSummary& summary);
std::string SummaryText(const ModelSummary& summary);
std::string SummaryJson(const ModelSummary& summary);  // one line

}  // namespace expertmesh::cli
