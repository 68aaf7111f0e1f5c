// The lightning indexer of sparse attention (docs/formats.md §2.2, docs/model-family.md §4.4): a
// small key per token, and for each row the index_topk entries of its lane with the largest scores.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/blocks/selection.h"
#include "model/config.h"
#include "model/kernels/linear.h"
#include "model/runtime.h"
#include "model/weight_loader.h"

namespace expertmesh::model {

/// Buffers of one step, kept between steps. One per model; used by one step at a time.
struct IndexerScratch {
  std::vector<float> keys;     // [rows, width]
  std::vector<float> queries;  // [rows, heads·width]
  std::vector<float> weights;  // [rows, heads]
  std::vector<float> scores;   // [rows of one lane that share tiles, entries]
  struct Thread {
    std::vector<float> columns;        // [width, 16], of keys
    std::vector<uint64_t> candidates;  // of SelectLargest
  };
  std::vector<Thread> threads;
};

/// The indexer of one layer. Immutable after Load.
class Indexer {
 public:
  /// `slot`: place of the layer among those with an indexer, in the stream of index keys.
  static absl::StatusOr<Indexer> Load(const WeightLoader& loader, const Config& config,
                                      uint32_t layer, uint32_t slot);

  /// Writes the index keys of all rows, then chooses for each. x [rows, hidden] and latents
  /// [rows, q_rank] are the float32 rows (docs/model-family.md §5), turns [rows, rope dims]. Rows
  /// that see at most `top` entries take all of them. A row dies if a score is not a number or its
  /// forced positions are not as many as it would choose, distinct and visible.
  void Select(const Exec& exec, std::span<const StepRow> rows, const float* x, const float* latents,
              const float* turns, IndexerScratch& scratch, Selection& selection,
              std::span<uint8_t> alive) const;

 private:
  void WriteKeys(const Exec& exec, std::span<const StepRow> rows, const float* x,
                 const float* turns, IndexerScratch& s) const;
  void Project(const Exec& exec, size_t rows, const float* x, const float* latents,
               const float* turns, IndexerScratch& s) const;
  void ScoreTile(const Exec& exec, std::span<const StepRow> group, size_t first_row, size_t page,
                 size_t stride, IndexerScratch& s, IndexerScratch::Thread& thread) const;
  void ChooseGroup(const Exec& exec, std::span<const StepRow> rows, size_t begin, size_t end,
                   IndexerScratch& s, Selection& selection, std::span<uint8_t> alive) const;
  void Turn(const float* turns, float* head) const;

  uint32_t layer_ = 0;
  uint32_t slot_ = 0;
  size_t top_ = 0;
  size_t heads_ = 0;
  size_t width_ = 0;
  size_t rope_ = 0;
  bool interleaved_ = true;
  float score_factor_ = 0;          // width^-1/2
  float weight_factor_ = 0;         // heads^-1/2
  PackedMatrix query_;              // wq_b [heads·width, q_rank]
  PackedMatrix key_;                // wk [width, hidden]
  PackedMatrix weights_;            // weights_proj [heads, hidden], as stored
  std::vector<float> norm_weight_;  // k_norm [width]
  std::vector<float> norm_bias_;    // [width]
};

}  // namespace expertmesh::model
