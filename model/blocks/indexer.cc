#include "model/blocks/indexer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "model/blocks/lane_entries.h"
#include "model/blocks/rope.h"
#include "model/kernels/bf16.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr float kKeyNormEps = 1e-6f;
constexpr size_t kGroupRows = 8;  // rows of one lane that share a turned page

// weight · (x − mean) / sqrt(variance + eps) + bias, in place.
void LayerNorm(const KernelTable& kernels, const std::vector<float>& ones,
               const std::vector<float>& weight, const std::vector<float>& bias, float* x) {
  const size_t n = weight.size();
  const auto width = static_cast<float>(n);
  const float mean = kernels.dot(x, ones.data(), n) / width;
  for (size_t i = 0; i < n; ++i) x[i] = x[i] - mean;
  const float variance = kernels.dot(x, x, n) / width;
  const float r = 1.0f / std::sqrt(variance + kKeyNormEps);
  for (size_t i = 0; i < n; ++i) x[i] = weight[i] * (x[i] * r) + bias[i];
}

// The forced positions of a row, as places in its lane; false if they cannot be what it chose.
bool TakeForced(const StepRow& row, uint32_t layer, size_t top, uint32_t* out) {
  const std::vector<uint64_t>& forced = (*row.forced_positions)[layer];
  const uint64_t first = row.lane->first_position();
  const size_t seen = row.position - first + 1;
  if (forced.size() != std::min(top, seen)) return false;
  for (size_t i = 0; i < forced.size(); ++i) {
    if (forced[i] < first || forced[i] > row.position) return false;
    if (i > 0 && forced[i] <= forced[i - 1]) return false;
    if (seen > top) out[i] = static_cast<uint32_t>(forced[i] - first);
  }
  return true;
}

bool HasForced(const StepRow& row, uint32_t layer) {
  return row.forced_positions != nullptr && layer < row.forced_positions->size() &&
         !(*row.forced_positions)[layer].empty();
}

}  // namespace

absl::StatusOr<Indexer> Indexer::Load(const WeightLoader& loader, const Config& config,
                                      uint32_t layer, uint32_t slot) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".self_attn.indexer.");
  const IndexerConfig& c = *config.indexer;
  Indexer i;
  i.layer_ = layer;
  i.slot_ = slot;
  i.top_ = c.index_topk;
  i.heads_ = c.index_n_heads;
  i.width_ = c.index_head_dim;
  i.rope_ = config.qk_rope_head_dim;
  i.interleaved_ = c.indexer_rope_interleave;
  i.score_factor_ = 1.0f / std::sqrt(static_cast<float>(i.width_));
  i.weight_factor_ = 1.0f / std::sqrt(static_cast<float>(i.heads_));
  EM_ASSIGN_OR_RETURN(i.query_, loader.Matrix(absl::StrCat(prefix, "wq_b.weight"),
                                              i.heads_ * i.width_, config.q_lora_rank));
  EM_ASSIGN_OR_RETURN(
      i.key_, loader.Matrix(absl::StrCat(prefix, "wk.weight"), i.width_, config.hidden_size));
  EM_ASSIGN_OR_RETURN(i.weights_,
                      loader.UnroundedMatrix(absl::StrCat(prefix, "weights_proj.weight"), i.heads_,
                                             config.hidden_size));
  EM_ASSIGN_OR_RETURN(i.norm_weight_,
                      loader.Vector(absl::StrCat(prefix, "k_norm.weight"), i.width_));
  EM_ASSIGN_OR_RETURN(i.norm_bias_, loader.Vector(absl::StrCat(prefix, "k_norm.bias"), i.width_));
  return i;
}

// Rope on the first dims; the rest is unchanged.
void Indexer::Turn(const float* turns, float* head) const {
  if (interleaved_) {
    Rope::Apply(turns, rope_, head);
  } else {
    Rope::ApplyHalfSplit(turns, rope_, head);
  }
}

void Indexer::WriteKeys(const Exec& exec, std::span<const StepRow> rows, const float* x,
                        const float* turns, IndexerScratch& s) const {
  const std::vector<float> ones(width_, 1.0f);
  s.keys.resize(rows.size() * width_);
  Linear(exec, key_, x, key_.inputs, rows.size(), s.keys.data(), width_);
  for (size_t r = 0; r < rows.size(); ++r) {
    float* key = s.keys.data() + r * width_;
    LayerNorm(exec.kernels, ones, norm_weight_, norm_bias_, key);
    Turn(turns + r * rope_, key);
    StoreEntry(exec.profile, key, width_,
               rows[r].lane->At(kIndexKeyStream, slot_, IndexOf(rows[r])));
  }
}

void Indexer::Project(const Exec& exec, size_t rows, const float* x, const float* latents,
                      const float* turns, IndexerScratch& s) const {
  s.queries.resize(rows * heads_ * width_);
  s.weights.resize(rows * heads_);
  Linear(exec, query_, latents, query_.inputs, rows, s.queries.data(), heads_ * width_);
  Linear(exec, weights_, x, weights_.inputs, rows, s.weights.data(), heads_);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t h = 0; h < heads_; ++h) {
      Turn(turns + r * rope_, s.queries.data() + (r * heads_ + h) * width_);
    }
  }
  exec.kernels.scale(weight_factor_, s.weights.data(), rows * heads_, s.weights.data());
}

// Scores of one page of keys for the rows of a group; `first_row`: place of the first in the step.
void Indexer::ScoreTile(const Exec& exec, std::span<const StepRow> group, size_t first_row,
                        size_t page, size_t stride, IndexerScratch& s,
                        IndexerScratch::Thread& thread) const {
  thread.columns.resize(width_ * kKeyLanes);
  const LaneState& lane = *group[0].lane;
  const size_t last = IndexOf(group.back()) / kTileKeys;
  const size_t count = std::min(kTileKeys, IndexOf(group.back()) + 1 - page * kTileKeys);
  exec.kernels.index_scores({lane.Page(kIndexKeyStream, slot_, page), exec.profile.kv, width_,
                             count, lane.Page(kIndexKeyStream, slot_, std::min(page + 1, last)),
                             s.queries.data() + first_row * heads_ * width_,
                             s.weights.data() + first_row * heads_, group.size(), heads_,
                             score_factor_, s.scores.data() + page * kTileKeys, stride,
                             thread.columns.data()});
}

// Rows [begin, end) of one lane, each of which sees more than top_ entries.
void Indexer::ChooseGroup(const Exec& exec, std::span<const StepRow> rows, size_t begin, size_t end,
                          IndexerScratch& s, Selection& selection, std::span<uint8_t> alive) const {
  const std::span<const StepRow> group = rows.subspan(begin, end - begin);
  const size_t pages = IndexOf(group.back()) / kTileKeys + 1;
  const size_t stride = pages * kTileKeys;
  s.scores.resize(group.size() * stride);
  exec.pool.ParallelFor(pages, GrainFor(group.size() * heads_ * width_ * kTileKeys),
                        [&](size_t first, size_t last, int t) {
                          for (size_t page = first; page < last; ++page) {
                            ScoreTile(exec, group, begin, page, stride, s,
                                      s.threads[static_cast<size_t>(t)]);
                          }
                        });
  exec.pool.ParallelFor(group.size(), GrainFor(8 * stride), [&](size_t first, size_t last, int t) {
    for (size_t r = first; r < last; ++r) {
      const std::span<const float> scores(s.scores.data() + r * stride, IndexOf(group[r]) + 1);
      uint32_t* out = selection.indices.data() + (begin + r) * top_;
      if (!SelectLargest(scores, top_, s.threads[static_cast<size_t>(t)].candidates, out)) {
        for (size_t i = 0; i < top_; ++i) out[i] = static_cast<uint32_t>(i);
        alive[begin + r] = 0;
      }
      selection.counts[begin + r] = static_cast<uint32_t>(top_);
    }
  });
}

void Indexer::Select(const Exec& exec, std::span<const StepRow> rows, const float* x,
                     const float* latents, const float* turns, IndexerScratch& s,
                     Selection& selection, std::span<uint8_t> alive) const {
  s.threads.resize(static_cast<size_t>(exec.pool.threads()));
  selection.top = top_;
  selection.counts.assign(rows.size(), 0);
  selection.indices.resize(rows.size() * top_);
  WriteKeys(exec, rows, x, turns, s);
  const auto scored = [&](size_t r) {
    return IndexOf(rows[r]) >= top_ && !HasForced(rows[r], layer_);
  };
  bool any = false;
  for (size_t r = 0; r < rows.size(); ++r) {
    any = any || scored(r);
    if (!HasForced(rows[r], layer_)) continue;
    if (!TakeForced(rows[r], layer_, top_, selection.indices.data() + r * top_)) {
      alive[r] = 0;
    } else if (IndexOf(rows[r]) >= top_) {
      selection.counts[r] = static_cast<uint32_t>(top_);
    }
  }
  if (!any) return;
  Project(exec, rows.size(), x, latents, turns, s);
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin + 1;
    if (scored(begin)) {
      while (end < rows.size() && end - begin < kGroupRows && scored(end) &&
             rows[end].lane == rows[begin].lane) {
        ++end;
      }
      ChooseGroup(exec, rows, begin, end, s, selection, alive);
    }
    begin = end;
  }
}

}  // namespace expertmesh::model
