// A model directory as one GGUF file for other engines: what `expertmesh model export --gguf`
// makes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/writer/gguf_plan.h"

namespace expertmesh::model {

/// "f32", "bf16" or "q8_0"; kInvalidArgument otherwise.
absl::StatusOr<GgmlType> ParseGgufType(std::string_view name);
/// "split" or "joined"; kInvalidArgument otherwise.
absl::StatusOr<KvbForm> ParseKvbForm(std::string_view name);

struct GgufOptions {
  std::string directory;
  std::string file;  // must not exist
  GgmlType type = GgmlType::kBf16;
  KvbForm kv_b = KvbForm::kSplit;
  int threads = 1;
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> progress;
  std::function<bool()> cancelled;
};

struct GgufSummary {
  uint64_t tensors = 0;
  uint64_t bytes = 0;  // of the file
  /// The format has one epsilon for all norms; true if this model has another for q_a and kv_a
  /// (docs/formats.md §1.2), so that other engines compute these differently.
  bool differs_in_epsilon = false;
};

/// Reads every tensor through the checks of the loader and writes it aside, then renames. Q8_0
/// holds the numbers that int8 of group 32 holds: s = F16(amax / 127), nearest even; attn_k_b is
/// quantised along the other axis, being transposed. Errors: PlanGguf's and AddGgufTokenizer's,
/// kInvalidArgument (file exists, disk full), kCancelled; nothing is left behind.
absl::StatusOr<GgufSummary> ExportGguf(const GgufOptions& options);

}  // namespace expertmesh::model
