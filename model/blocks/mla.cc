#include "model/blocks/mla.h"

#include <algorithm>
#include <array>
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
constexpr size_t kTilesAtOnce = 8;       // that the threads share

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
  // Of the last row, which attends to the most.
  size_t EntryCount() const { return Visible(rows.size() - 1); }
};

// Up to 64 entries of a group by rank, in f32.
struct Mla::Tile {
  size_t index = 0;
  const float* rows = nullptr;  // [64, rank + rope]
  const float* keys = nullptr;  // [rank + rope, 64]
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

// One maximum and one sum per row and head, [rows, heads] each, of the entries so far.
struct Mla::Softmax {
  float* maxima;
  float* sums;
};

void Mla::StartGroup(const Group& group, Softmax softmax) const {
  const size_t rows = group.rows.size();
  std::fill_n(softmax.maxima, rows * heads_, -std::numeric_limits<float>::infinity());
  std::fill_n(softmax.sums, rows * heads_, 0.0f);
  std::fill_n(group.context, rows * heads_ * rank_, 0.0f);
  for (size_t r = 0; r < rows; ++r) group.attended[r] = static_cast<uint32_t>(group.Visible(r));
}

// Online softmax over one tile for heads [head_begin, head_end). Tiles come in ascending order.
void Mla::AttendTile(const Exec& exec, const Group& group, Softmax softmax, const Tile& tile,
                     size_t head_begin, size_t head_end) const {
  const size_t width = rank_ + rope_;
  for (size_t r = 0; r < group.rows.size(); ++r) {
    const size_t visible = group.Visible(r);
    if (visible <= tile.index * kTileKeys) continue;
    const size_t valid = std::min(kTileKeys, visible - tile.index * kTileKeys);
    const size_t head = r * heads_ + head_begin;
    exec.kernels.attend({tile.keys, tile.rows, width, width, rank_, valid, scale_,
                         group.queries + head * width, head_end - head_begin, softmax.maxima + head,
                         softmax.sums + head, group.context + head * rank_});
  }
}

void Mla::EndGroup(const Exec& exec, const Group& group, Softmax softmax, size_t head_begin,
                   size_t head_end) const {
  for (size_t r = 0; r < group.rows.size(); ++r) {
    float* context = group.context + (r * heads_ + head_begin) * rank_;
    for (size_t h = 0; h < head_end - head_begin; ++h) {
      float* row = context + h * rank_;
      exec.kernels.scale(1.0f / softmax.sums[r * heads_ + head_begin + h], row, rank_, row);
    }
    RoundActivations(exec.kernels, exec.profile, context, (head_end - head_begin) * rank_);
  }
}

// Tile `index` of the group, widened and transposed into `scratch` [2, 64, rank + rope].
Mla::Tile Mla::ReadTile(const Exec& exec, const Group& group, size_t index, float* scratch) const {
  const size_t width = rank_ + rope_;
  const size_t count = std::min(kTileKeys, group.EntryCount() - index * kTileKeys);
  float* keys = scratch + kTileKeys * width;
  const float* rows = LoadTile(exec, group, index, count, scratch);
  exec.kernels.transpose_tile(rows, width, count, keys);
  return {index, rows, keys};
}

// A group on one thread.
void Mla::AttendGroup(const Exec& exec, const Group& group, std::vector<float>& scratch) const {
  const size_t tile_size = 2 * kTileKeys * (rank_ + rope_);
  const size_t softmax_size = kGroupRows * heads_;
  scratch.resize(tile_size + 2 * softmax_size);
  const Softmax softmax{scratch.data() + tile_size, scratch.data() + tile_size + softmax_size};
  StartGroup(group, softmax);
  for (size_t t = 0; t * kTileKeys < group.EntryCount(); ++t) {
    AttendTile(exec, group, softmax, ReadTile(exec, group, t, scratch.data()), 0, heads_);
  }
  EndGroup(exec, group, softmax, 0, heads_);
}

// A group on all threads: they share its tiles, then its heads, some tiles at a time. The bits do
// not depend on it.
void Mla::AttendTogether(const Exec& exec, const Group& group, std::vector<float>& scratch) const {
  const size_t tile_size = 2 * kTileKeys * (rank_ + rope_);
  const size_t softmax_size = kGroupRows * heads_;
  scratch.resize(kTilesAtOnce * tile_size + 2 * softmax_size);
  float* sums = scratch.data() + kTilesAtOnce * tile_size;
  const Softmax softmax{sums, sums + softmax_size};
  StartGroup(group, softmax);
  const size_t tile_count = (group.EntryCount() + kTileKeys - 1) / kTileKeys;
  const size_t head_items = (heads_ + kHeadStep - 1) / kHeadStep;
  std::array<Tile, kTilesAtOnce> tiles;
  for (size_t first = 0; first < tile_count; first += kTilesAtOnce) {
    const size_t count = std::min(kTilesAtOnce, tile_count - first);
    // Moving a value about takes as long as some multiply-adds of others.
    exec.pool.ParallelFor(count, GrainFor(8 * tile_size), [&](size_t begin, size_t end, int) {
      for (size_t t = begin; t < end; ++t) {
        tiles[t] = ReadTile(exec, group, first + t, scratch.data() + t * tile_size);
      }
    });
    const size_t work = count * tile_size * group.rows.size() * kHeadStep;
    exec.pool.ParallelFor(head_items, GrainFor(work), [&](size_t begin, size_t end, int) {
      const size_t head_end = std::min(heads_, end * kHeadStep);
      for (size_t t = 0; t < count; ++t) {
        AttendTile(exec, group, softmax, tiles[t], begin * kHeadStep, head_end);
      }
      if (first + count == tile_count) EndGroup(exec, group, softmax, begin * kHeadStep, head_end);
    });
  }
}

void Mla::AttendAll(const Exec& exec, std::span<const StepRow> rows, const Selection& selection,
                    MlaScratch& s) const {
  const size_t width = rank_ + rope_;
  s.context.resize(rows.size() * heads_ * rank_);
  s.attended.resize(rows.size());
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
    keys += group.EntryCount() * group.rows.size();
    groups.push_back(group);
    r = end;
  }
  if (groups.size() < 2 * s.threads.size()) {
    for (const Group& group : groups) AttendTogether(exec, group, s.threads.front());
    return;
  }
  const size_t work = keys * heads_ * 2 * width / groups.size();
  exec.pool.ParallelFor(groups.size(), GrainFor(work), [&](size_t begin, size_t end, int thread) {
    for (size_t g = begin; g < end; ++g) {
      AttendGroup(exec, groups[g], s.threads[static_cast<size_t>(thread)]);
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
