#include "model/blocks/mla.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "model/blocks/lane_entries.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr float kLatentNormEps = 1e-6f;  // of q_a and kv_a norms, whatever rms_norm_eps says
constexpr size_t kGroupRows = 8;         // rows of one lane that share a loaded tile
constexpr size_t kHeadStep = 4;          // heads are split over threads in multiples of this

// Nothing to add for most models.
void AddBias(const Exec& exec, const std::vector<float>& bias, float* row) {
  if (!bias.empty()) exec.kernels.add(row, bias.data(), bias.size(), row);
}

}  // namespace

absl::StatusOr<Mla> Mla::Load(const WeightLoader& loader, const Config& config, uint32_t layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".self_attn.");
  Mla m;
  m.layer_ = layer;
  m.heads_ = config.num_attention_heads;
  m.q_rank_ = config.q_lora_rank;
  m.rank_ = config.kv_lora_rank;
  m.nope_ = config.qk_nope_head_dim;
  m.rope_ = config.qk_rope_head_dim;
  m.value_ = config.v_head_dim;
  m.scale_ = AttentionScale(config);
  m.keeps_latents_ = config.HasOwnIndexer(layer);
  std::vector<WeightLoader::Part> down;
  if (m.q_rank_ > 0) down.push_back({absl::StrCat(prefix, "q_a_proj.weight"), m.q_rank_});
  down.push_back({absl::StrCat(prefix, "kv_a_proj_with_mqa.weight"), m.rank_ + m.rope_});
  EM_ASSIGN_OR_RETURN(m.down_, loader.Stacked(down, config.hidden_size));
  const bool latent = m.q_rank_ > 0;
  if (latent) {
    EM_ASSIGN_OR_RETURN(m.q_norm_,
                        loader.Vector(absl::StrCat(prefix, "q_a_layernorm.weight"), m.q_rank_));
  }
  EM_ASSIGN_OR_RETURN(m.kv_norm_,
                      loader.Vector(absl::StrCat(prefix, "kv_a_layernorm.weight"), m.rank_));
  EM_ASSIGN_OR_RETURN(
      m.q_up_,
      loader.Matrix(absl::StrCat(prefix, latent ? "q_b_proj.weight" : "q_proj.weight"),
                    m.heads_ * (m.nope_ + m.rope_), latent ? m.q_rank_ : config.hidden_size));
  EM_ASSIGN_OR_RETURN(m.absorbed_, loader.KeyValue(absl::StrCat(prefix, "kv_b_proj.weight"),
                                                   m.heads_, m.nope_, m.value_, m.rank_));
  EM_ASSIGN_OR_RETURN(m.out_, loader.Matrix(absl::StrCat(prefix, "o_proj.weight"),
                                            config.hidden_size, m.heads_ * m.value_));
  if (config.attention_bias) EM_RETURN_IF_ERROR(m.LoadBiases(loader, config, prefix));
  return m;
}

absl::Status Mla::LoadBiases(const WeightLoader& loader, const Config& config,
                             const std::string& prefix) {
  if (q_rank_ > 0) {
    EM_ASSIGN_OR_RETURN(down_bias_, loader.Vector(absl::StrCat(prefix, "q_a_proj.bias"), q_rank_));
  }
  EM_ASSIGN_OR_RETURN(
      const std::vector<float> kv,
      loader.Vector(absl::StrCat(prefix, "kv_a_proj_with_mqa.bias"), rank_ + rope_));
  down_bias_.insert(down_bias_.end(), kv.begin(), kv.end());
  EM_ASSIGN_OR_RETURN(out_bias_,
                      loader.Vector(absl::StrCat(prefix, "o_proj.bias"), config.hidden_size));
  return absl::OkStatus();
}

// c = rms(a[:rank]), k = rope(a[rank:]), rounded to the KV type and stored.
void Mla::WriteEntry(const Exec& exec, const StepRow& row, const float* turns,
                     float* latent) const {
  exec.kernels.rms_norm(latent, kv_norm_.data(), kLatentNormEps, rank_, latent);
  Rope::Apply(turns, rope_, latent + rank_);
  StoreEntry(exec.profile, latent, rank_ + rope_,
             row.lane->At(kLatentStream, layer_, IndexOf(row)));
}

void Mla::Prepare(const Exec& exec, std::span<const StepRow> rows, const float* x,
                  const float* turns, MlaScratch& s) const {
  const size_t width = down_.outputs;
  s.projected.resize(rows.size() * width);
  s.latent_query.resize(rows.size() * q_rank_);
  if (keeps_latents_) s.latents.resize(rows.size() * q_rank_);
  s.query.resize(rows.size() * q_up_.outputs);
  Linear(exec, down_, x, down_.inputs, rows.size(), s.projected.data(), width);
  exec.pool.ParallelFor(rows.size(), GrainFor(4 * width), [&](size_t begin, size_t end, int) {
    for (size_t r = begin; r < end; ++r) {
      float* projected = s.projected.data() + r * width;
      AddBias(exec, down_bias_, projected);
      if (q_rank_ > 0) {
        float* query = s.latent_query.data() + r * q_rank_;
        exec.kernels.rms_norm(projected, q_norm_.data(), kLatentNormEps, q_rank_, query);
        if (keeps_latents_) std::copy_n(query, q_rank_, s.latents.data() + r * q_rank_);
        RoundActivations(exec.kernels, exec.profile, query, q_rank_);
      }
      WriteEntry(exec, rows[r], turns + r * rope_, projected + q_rank_);
    }
  });
  Linear(exec, q_up_, q_rank_ > 0 ? s.latent_query.data() : x, q_up_.inputs, rows.size(),
         s.query.data(), q_up_.outputs);
}

// absorbed_h = [Wk_hᵀ q_n | rope(q_r)] for all rows and heads.
void Mla::Absorb(const Exec& exec, size_t rows, const float* turns, MlaScratch& s) const {
  const size_t head_in = nope_ + rope_;
  const size_t head_out = rank_ + rope_;
  s.absorbed.resize(rows * heads_ * head_out);
  exec.pool.ParallelFor(heads_, GrainFor(rows * nope_ * rank_), [&](size_t begin, size_t end, int) {
    for (size_t h = begin; h < end; ++h) {
      for (size_t r = 0; r < rows; ++r) {
        float* query = s.query.data() + (r * heads_ + h) * head_in;
        float* turned = s.absorbed.data() + (r * heads_ + h) * head_out + rank_;
        std::memcpy(turned, query + nope_, rope_ * sizeof(float));
        Rope::Apply(turns + r * rope_, rope_, turned);
        RoundActivations(exec.kernels, exec.profile, query, nope_);
      }
      LinearRows(exec.kernels, absorbed_.key[h], s.query.data() + h * head_in, heads_ * head_in,
                 rows, s.absorbed.data() + h * head_out, heads_ * head_out);
    }
  });
}

// Consecutive rows of one lane that share tiles: they see every entry up to their own. Or one row
// with a selection.
struct Mla::Group {
  std::span<const StepRow> rows;
  std::span<const uint32_t> selected;  // empty = dense
  const float* queries = nullptr;      // [rows, heads, rank + rope]
  float* context = nullptr;            // [rows, heads, rank]
  uint32_t* attended = nullptr;        // [rows]

  // Entries that row r attends to.
  size_t Visible(size_t r) const {
    return selected.empty() ? IndexOf(rows[r]) + 1 : selected.size();
  }
};

// Tile `tile_index` of the group's entries by rank, in f32 [count, rank + rope].
const float* Mla::LoadTile(const Exec& exec, const Group& group, size_t tile_index, size_t count,
                           float* tile) const {
  const size_t width = rank_ + rope_;
  const LaneState& lane = *group.rows[0].lane;
  if (group.selected.empty()) {
    return WidenEntries(exec, lane.Page(kLatentStream, layer_, tile_index), count * width, tile);
  }
  for (size_t i = 0; i < count; ++i) {
    const uint32_t index = group.selected[tile_index * kTileKeys + i];
    float* to = tile + i * width;
    const float* entry = WidenEntries(exec, lane.At(kLatentStream, layer_, index), width, to);
    if (entry != to) std::copy_n(entry, width, to);
  }
  return tile;
}

// Online softmax of a group for heads [head_begin, head_end): entries in ascending position, in
// tiles of 64 by rank.
void Mla::AttendGroup(const Exec& exec, const Group& group, size_t head_begin, size_t head_end,
                      std::vector<float>& scratch) const {
  const size_t width = rank_ + rope_;
  const size_t heads = head_end - head_begin;
  const size_t row_count = group.rows.size();
  scratch.resize(2 * kTileKeys * width + 2 * kGroupRows * heads);
  float* tile = scratch.data();
  float* keys = tile + kTileKeys * width;
  float* maxima = keys + kTileKeys * width;
  float* sums = maxima + kGroupRows * heads;
  std::fill(maxima, sums, -std::numeric_limits<float>::infinity());
  std::fill(sums, sums + kGroupRows * heads, 0.0f);
  for (size_t r = 0; r < row_count; ++r) {
    float* first = group.context + (r * heads_ + head_begin) * rank_;
    std::fill(first, first + heads * rank_, 0.0f);
  }
  const size_t keys_total = group.Visible(row_count - 1);
  for (size_t t = 0; t * kTileKeys < keys_total; ++t) {
    const size_t count = std::min(kTileKeys, keys_total - t * kTileKeys);
    const float* rows = LoadTile(exec, group, t, count, tile);
    exec.kernels.transpose_tile(rows, width, count, keys);
    for (size_t r = 0; r < row_count; ++r) {
      const size_t visible = group.Visible(r);
      if (visible <= t * kTileKeys) continue;
      const size_t valid = std::min(kTileKeys, visible - t * kTileKeys);
      if (head_begin == 0) group.attended[r] += static_cast<uint32_t>(valid);
      const size_t head = r * heads_ + head_begin;
      exec.kernels.attend({keys, rows, width, width, rank_, valid, scale_,
                           group.queries + head * width, heads, maxima + r * heads,
                           sums + r * heads, group.context + head * rank_});
    }
  }
  for (size_t r = 0; r < row_count; ++r) {
    float* context = group.context + (r * heads_ + head_begin) * rank_;
    for (size_t h = 0; h < heads; ++h) {
      float* row = context + h * rank_;
      exec.kernels.scale(1.0f / sums[r * heads + h], row, rank_, row);
    }
    RoundActivations(exec.kernels, exec.profile, context, heads * rank_);
  }
}

void Mla::AttendAll(const Exec& exec, std::span<const StepRow> rows, const Selection& selection,
                    MlaScratch& s) const {
  const size_t width = rank_ + rope_;
  s.context.resize(rows.size() * heads_ * rank_);
  s.attended.assign(rows.size(), 0);
  s.threads.resize(static_cast<size_t>(exec.pool.threads()));
  std::vector<Group> groups;
  size_t keys = 0;
  for (size_t r = 0; r < rows.size();) {
    Group group{rows.subspan(r, 1),
                {},
                s.absorbed.data() + r * heads_ * width,
                s.context.data() + r * heads_ * rank_,
                s.attended.data() + r};
    size_t end = r + 1;
    if (!selection.IsDense(r)) {
      group.selected = selection.Of(r);
    } else {
      while (end < rows.size() && end - r < kGroupRows && rows[end].lane == rows[r].lane &&
             selection.IsDense(end)) {
        ++end;
      }
      group.rows = rows.subspan(r, end - r);
    }
    keys += group.Visible(group.rows.size() - 1) * group.rows.size();
    groups.push_back(group);
    r = end;
  }
  // Few groups: split the heads too, so that every thread has work. The bits do not depend on it.
  const size_t head_items = (heads_ + kHeadStep - 1) / kHeadStep;
  const size_t threads = s.threads.size();
  const size_t splits = groups.size() >= 2 * threads ? 1 : std::min(head_items, threads);
  const size_t heads_per_split = (head_items + splits - 1) / splits * kHeadStep;
  const size_t items = groups.size() * splits;
  exec.pool.ParallelFor(items, GrainFor(keys * heads_ * 2 * width / items),
                        [&](size_t begin, size_t end, int thread) {
                          for (size_t item = begin; item < end; ++item) {
                            const size_t head = item % splits * heads_per_split;
                            if (head >= heads_) continue;
                            AttendGroup(exec, groups[item / splits], head,
                                        std::min(heads_, head + heads_per_split),
                                        s.threads[static_cast<size_t>(thread)]);
                          }
                        });
}

void Mla::Attend(const Exec& exec, std::span<const StepRow> rows, const float* turns,
                 const Selection& selection, MlaScratch& s, float* y) const {
  Absorb(exec, rows.size(), turns, s);
  AttendAll(exec, rows, selection, s);
  const size_t values = heads_ * value_;
  s.values.resize(rows.size() * values);
  exec.pool.ParallelFor(
      heads_, GrainFor(rows.size() * rank_ * value_), [&](size_t begin, size_t end, int) {
        for (size_t h = begin; h < end; ++h) {
          LinearRows(exec.kernels, absorbed_.value[h], s.context.data() + h * rank_, heads_ * rank_,
                     rows.size(), s.values.data() + h * value_, values);
        }
      });
  RoundActivations(exec.kernels, exec.profile, s.values.data(), s.values.size());
  Linear(exec, out_, s.values.data(), values, rows.size(), y, out_.outputs);
  for (size_t r = 0; r < rows.size(); ++r) AddBias(exec, out_bias_, y + r * out_.outputs);
}

}  // namespace expertmesh::model
