// What an export to GGUF writes, decided before anything is written: architecture `deepseek2`
// (docs/formats.md §7.5, docs/model-family.md §6 "`bench-1b` for other engines").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/writer/gguf_header.h"

namespace expertmesh::model {

/// How kv_b is written: as attn_k_b (transposed) and attn_v_b, which absorbed attention needs, or
/// whole as attn_kv_b, as older files have it.
enum class KvbForm { kSplit, kJoined };

/// Rows of a source in the order of the file. Transposed, they become `source.columns` rows of
/// row_count values.
struct GgufPiece {
  StoredMatrix source;
  uint64_t row_begin = 0;
  uint64_t row_count = 0;
  bool transposed = false;
};

/// A tensor is its pieces one after another.
struct GgufItem {
  GgufTensor tensor;
  std::vector<GgufPiece> pieces;
};

struct GgufPlan {
  GgufMetadata metadata;  // of the architecture
  std::vector<GgufItem> items;
};

/// kUnsupported naming what the architecture has no place for: residual streams (mHC), sparse
/// attention (DSA), a memory (Engram), attention biases, a rope scaling that its keys cannot say.
absl::Status CheckGgufExport(const Config& config);

/// `weights` is the type of what is neither norm, gate nor bias (these are F32); Q8_0 becomes BF16
/// where a row is no whole number of blocks. Views of the plan live as long as the checkpoint.
/// Errors: CheckGgufExport's, kBadCheckpoint.
absl::StatusOr<GgufPlan> PlanGguf(const Checkpoint& checkpoint, const Config& config,
                                  std::string_view name, GgmlType weights, KvbForm kv_b);

}  // namespace expertmesh::model
