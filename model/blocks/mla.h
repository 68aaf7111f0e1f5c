// Multi-head latent attention in the absorbed form, one formula for prompt and generated tokens
// (docs/formats.md §1.2–1.3, docs/model-family.md §4.4–§5). The cache entry of a token is
// [latent (rank) | key rope (rope dims)] in the profile's KV type.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/blocks/rope.h"
#include "model/blocks/selection.h"
#include "model/config.h"
#include "model/kernels/linear.h"
#include "model/lane_state.h"
#include "model/runtime.h"
#include "model/weight_loader.h"

namespace expertmesh::model {

/// Buffers of rows that attend; H: the heads of each, rounded up to sixteen, sixteen lanes last.
struct AttendScratch {
  std::vector<float> queries;             // [H/16, rank + rope, 16]
  std::vector<float> context;             // [H/16, rank, 16]
  std::vector<float> maxima;              // [H], running
  std::vector<float> sums;                // [H], running
  std::vector<float> scores;              // [tiles, H/16, 64, 16], then weights
  std::vector<float> factors;             // [tiles, H]
  std::vector<const std::byte*> entries;  // [tiles, 64]
};

/// Buffers of one step, kept between steps. One per model; used by one step at a time.
struct MlaScratch {
  std::vector<float> projected;     // [rows, q_rank + rank + rope]
  std::vector<float> latents;       // [rows, q_rank], the same before rounding; for an indexer
  std::vector<float> latent_query;  // [rows, q_rank], normalised and rounded
  std::vector<float> query;         // [rows, heads·(nope + rope)]
  std::vector<float> absorbed;      // [rows, heads, rank + rope]
  std::vector<float> context;       // [rows, heads, rank]
  std::vector<float> values;        // [rows, heads·value]
  std::vector<uint32_t> attended;   // [rows], cache entries read
  std::vector<AttendScratch> threads;
};

/// One layer's attention. Immutable after Load.
class Mla {
 public:
  static absl::StatusOr<Mla> Load(const WeightLoader& loader, const Config& config, uint32_t layer);

  /// Writes the cache entries of all rows and computes their queries; with an indexer in this layer
  /// also scratch.latents. `x` [rows, hidden], normalised and rounded to the activation type;
  /// `turns` [rows, rope dims] from Rope::Turns.
  void Prepare(const Exec& exec, std::span<const StepRow> rows, const float* x, const float* turns,
               MlaScratch& scratch) const;
  /// Attends with what Prepare left; y [rows, hidden]. A row sees the selected entries of its lane
  /// up to its own position, also those written by earlier rows of this step. Fills
  /// scratch.attended.
  void Attend(const Exec& exec, std::span<const StepRow> rows, const float* turns,
              const Selection& selection, MlaScratch& scratch, float* y) const;

 private:
  absl::Status LoadBiases(const WeightLoader& loader, const Config& config,
                          const std::string& prefix);
  void WriteEntry(const Exec& exec, const StepRow& row, const float* turns, float* latent) const;
  void Absorb(const Exec& exec, size_t rows, const float* turns, MlaScratch& s) const;
  struct Rows;
  class RowPass;
  static size_t CountTogether(std::span<const StepRow> rows, const Selection& selection, size_t r);
  void AttendAll(const Exec& exec, std::span<const StepRow> rows, const Selection& selection,
                 MlaScratch& s) const;

  uint32_t layer_ = 0;
  size_t heads_ = 0;
  size_t q_rank_ = 0;
  size_t rank_ = 0;
  size_t nope_ = 0;
  size_t rope_ = 0;
  size_t value_ = 0;
  bool keeps_latents_ = false;  // an indexer reads them
  float scale_ = 0;             // AttentionScale
  PackedMatrix down_;           // [q_rank + rank + rope, hidden]: q_a, then kv_a_with_mqa
  std::vector<float> q_norm_;   // [q_rank]; empty without a query rank
  std::vector<float> kv_norm_;  // [rank]
  PackedMatrix
      q_up_;  // [heads·(nope + rope), q_rank]: q_b; or [.., hidden]: q_proj, if q_rank is 0
  WeightLoader::Absorbed absorbed_;  // Wkᵀ and Wv per head
  PackedMatrix out_;                 // [hidden, heads·value]
  std::vector<float> down_bias_;     // [q_rank + rank + rope]; empty without attention_bias
  std::vector<float> out_bias_;      // [hidden]; empty without attention_bias
};

}  // namespace expertmesh::model
