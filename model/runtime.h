// The attention side of a model: embedding, attention, gate, shared experts, head, lane state. The
// routed experts are behind ExpertBackend and the tables of the memory behind MemoryBackend, so
// this file knows no network.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"
#include "model/lane_state.h"
#include "model/memory_backend.h"
#include "model/packed_cache.h"
#include "model/profile.h"
#include "model/trace.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {

/// One MoE layer of one micro-batch, handed to the backend. Spans live until ExpertBackend::Finish
/// returns.
struct MoeCall {
  uint32_t layer = 0;
  uint32_t micro_batch = 0;
  size_t first_row = 0;  // of the micro-batch in the step
  size_t row_count = 0;
  size_t hidden = 0;
  size_t top_k = 0;
  std::span<const float> rows;  // [row_count, hidden] f32, normalised, before seam rounding
  std::span<const uint16_t> expert_ids;   // [row_count, top_k], ascending inside a row
  std::span<const float> expert_weights;  // [row_count, top_k], already normalised and scaled
  std::span<const uint8_t> alive;         // [row_count]; dead rows are not dispatched
  base::ThreadPool* pool = nullptr;       // for a loop inside Begin, if given
};

/// Where routed experts are computed: in process, or over a transport. Called on the engine thread,
/// for a micro-batch strictly Begin, Finish, Begin, Finish, …; the shared experts run beside Begin
/// and after it, the other micro-batches between the two.
class ExpertBackend {
 public:
  virtual ~ExpertBackend() = default;
  virtual void Begin(const MoeCall& call) = 0;
  /// Blocks until every row is summed or failed. out [row_count, hidden]: the finished combine
  /// tree; a failed row gets alive[row] = 0 and its out is not read; no other is touched.
  virtual void Finish(uint32_t micro_batch, std::span<float> out, std::span<uint8_t> alive) = 0;
};

/// How a step is to run; none of it changes a bit.
struct StepOptions {
  Trace* trace = nullptr;  // overwritten with what every layer computed, in one micro-batch
  MemoryBackend* memory = nullptr;  // of the memory's rows; nullptr = the model's own directory
  size_t micro_batches = 1;         // parts of the rows that go through a layer one after another
};

/// One token of one lane in a step. Rows of one lane are consecutive and in ascending position.
struct StepRow {
  LaneState* lane = nullptr;  // not owned; capacity for `position` already reserved
  uint32_t token = 0;         // below vocab_size: the caller has checked
  uint64_t position = 0;  // absolute: the rope angle; index in the lane = position − first_position
  bool wants_logits = false;
  /// Forced experts per layer (debug door); empty = the gate chooses. [layers][top_k]
  const std::vector<std::vector<uint16_t>>* forced_experts = nullptr;
  /// The lane's tokens before this one in order, at least the last engram_max_ngram − 1 that exist.
  /// Read by models with a memory only.
  std::span<const uint32_t> previous = {};
  /// Forced positions per layer, absolute and ascending, min(index_topk, entries seen) of them;
  /// empty = the indexer chooses. [layers][…]
  const std::vector<std::vector<uint64_t>>* forced_positions = nullptr;
};

struct StepResult {
  std::vector<uint8_t> alive;     // [rows]; 0 = the row's experts or memory failed, or a NaN
  std::vector<float> logits;      // [rows with wants_logits, in order; vocab]
  uint64_t attended_entries = 0;  // cache entries that attention read, over all rows and layers
};

/// Immutable after Load. RunStep may be called from one thread at a time (it uses the pool).
class AttentionModel {
 public:
  struct Options {
    std::string directory;
    std::string profile = "bf16";
    bool masked_gate_group_zero = false;  // docs/formats.md §1.6; part of the revision
    ConfigOverrides overrides = {};       // likewise part of it
    std::string isa = "auto";             // "avx512", "avx2", "baseline": same bits, other speed
    uint64_t packed_file_bytes_min = kPackedFileBytesMin;  // as in ExpertSlice
    bool local_memory = true;  // false: every RunStep names its MemoryBackend, no table is needed
  };
  static absl::StatusOr<std::unique_ptr<AttentionModel>> Load(const Options& options);
  virtual ~AttentionModel() = default;

  virtual const Config& config() const = 0;
  virtual const Profile& profile() const = 0;
  virtual const std::string& revision() const = 0;
  virtual const std::string& fingerprint() const = 0;
  virtual const LaneStateDeclaration& lane_state() const = 0;

  virtual StepResult RunStep(std::span<const StepRow> rows, ExpertBackend& experts,
                             base::ThreadPool& pool, const StepOptions& options) const = 0;
  StepResult RunStep(std::span<const StepRow> rows, ExpertBackend& experts,
                     base::ThreadPool& pool) const {
    return RunStep(rows, experts, pool, {});
  }
};

}  // namespace expertmesh::model
