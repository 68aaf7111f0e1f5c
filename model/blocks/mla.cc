#include "model/blocks/mla.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "model/kernels/bf16.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr float kLatentNormEps = 1e-6f;  // of q_a and kv_a norms, whatever rms_norm_eps says
constexpr size_t kGroupRows = 8;         // rows of one lane that share a loaded tile
constexpr size_t kHeadStep = 4;          // heads are split over threads in multiples of this

size_t IndexOf(const StepRow& row) { return row.position - row.lane->first_position(); }

// Consecutive rows of one lane, at most kGroupRows.
struct RowGroup {
  size_t begin;
  size_t end;
};
std::vector<RowGroup> GroupRows(std::span<const StepRow> rows) {
  std::vector<RowGroup> groups;
  for (size_t r = 0; r < rows.size(); ++r) {
    const bool extend =
        !groups.empty() && rows[r].lane == rows[r - 1].lane && r - groups.back().begin < kGroupRows;
    if (!extend) groups.push_back({r, r});
    groups.back().end = r + 1;
  }
  return groups;
}

// The first `size` elements of a page in f32: the page itself, or widened into `tile`.
const float* WidenTile(const Exec& exec, const std::byte* page, size_t size, float* tile) {
  if (exec.profile.kv == Dtype::kF32) return reinterpret_cast<const float*>(page);
  exec.kernels.widen_bf16(reinterpret_cast<const uint16_t*>(page), size, tile);
  return tile;
}

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
  std::byte* entry = row.lane->At(0, layer_, IndexOf(row));
  if (exec.profile.kv == Dtype::kF32) {
    std::memcpy(entry, latent, (rank_ + rope_) * sizeof(float));
  } else {
    uint16_t* halves = reinterpret_cast<uint16_t*>(entry);
    for (size_t i = 0; i < rank_ + rope_; ++i) halves[i] = NarrowBf16(latent[i]);
  }
}

void Mla::Project(const Exec& exec, std::span<const StepRow> rows, const float* x,
                  const float* turns, MlaScratch& s) const {
  const size_t width = down_.outputs;
  s.projected.resize(rows.size() * width);
  s.latent_query.resize(rows.size() * q_rank_);
  s.query.resize(rows.size() * q_up_.outputs);
  Linear(exec, down_, x, down_.inputs, rows.size(), s.projected.data(), width);
  exec.pool.ParallelFor(rows.size(), GrainFor(4 * width), [&](size_t begin, size_t end, int) {
    for (size_t r = begin; r < end; ++r) {
      float* projected = s.projected.data() + r * width;
      AddBias(exec, down_bias_, projected);
      if (q_rank_ > 0) {
        float* query = s.latent_query.data() + r * q_rank_;
        exec.kernels.rms_norm(projected, q_norm_.data(), kLatentNormEps, q_rank_, query);
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

// Online softmax of a few rows of one lane for heads [head_begin, head_end): keys in ascending
// position, in tiles of 64. `queries` and `context` are those of the group's first row.
void Mla::AttendGroup(const Exec& exec, std::span<const StepRow> group, const float* queries,
                      float* context, size_t head_begin, size_t head_end,
                      std::vector<float>& scratch) const {
  const size_t width = rank_ + rope_;
  const size_t heads = head_end - head_begin;
  scratch.resize(2 * kTileKeys * width + 2 * kGroupRows * heads);
  float* tile = scratch.data();
  float* keys = tile + kTileKeys * width;
  float* maxima = keys + kTileKeys * width;
  float* sums = maxima + kGroupRows * heads;
  std::fill(maxima, sums, -std::numeric_limits<float>::infinity());
  std::fill(sums, sums + kGroupRows * heads, 0.0f);
  for (size_t r = 0; r < group.size(); ++r) {
    float* first = context + (r * heads_ + head_begin) * rank_;
    std::fill(first, first + heads * rank_, 0.0f);
  }
  const LaneState& lane = *group[0].lane;
  const size_t keys_total = IndexOf(group.back()) + 1;
  for (size_t page = 0; page * kTileKeys < keys_total; ++page) {
    const size_t count = std::min(kTileKeys, keys_total - page * kTileKeys);
    const float* rows = WidenTile(exec, lane.Page(0, layer_, page), count * width, tile);
    exec.kernels.transpose_tile(rows, width, count, keys);
    for (size_t r = 0; r < group.size(); ++r) {
      const size_t visible = IndexOf(group[r]) + 1;
      if (visible <= page * kTileKeys) continue;
      const size_t head = r * heads_ + head_begin;
      exec.kernels.attend({keys, rows, width, width, rank_,
                           std::min(kTileKeys, visible - page * kTileKeys), scale_,
                           queries + head * width, heads, maxima + r * heads, sums + r * heads,
                           context + head * rank_});
    }
  }
  for (size_t r = 0; r < group.size(); ++r) {
    for (size_t h = 0; h < heads; ++h) {
      float* row = context + (r * heads_ + head_begin + h) * rank_;
      exec.kernels.scale(1.0f / sums[r * heads + h], row, rank_, row);
    }
    RoundActivations(exec.kernels, exec.profile, context + (r * heads_ + head_begin) * rank_,
                     heads * rank_);
  }
}

void Mla::AttendAll(const Exec& exec, std::span<const StepRow> rows, MlaScratch& s) const {
  const size_t width = rank_ + rope_;
  s.context.resize(rows.size() * heads_ * rank_);
  s.threads.resize(static_cast<size_t>(exec.pool.threads()));
  const std::vector<RowGroup> groups = GroupRows(rows);
  // Few groups: split the heads too, so that every thread has work. The bits do not depend on it.
  const size_t head_items = (heads_ + kHeadStep - 1) / kHeadStep;
  const size_t threads = s.threads.size();
  const size_t splits = groups.size() >= 2 * threads ? 1 : std::min(head_items, threads);
  const size_t heads_per_split = (head_items + splits - 1) / splits * kHeadStep;
  size_t keys = 0;
  for (const RowGroup& g : groups) keys += (IndexOf(rows[g.end - 1]) + 1) * (g.end - g.begin);
  const size_t items = groups.size() * splits;
  exec.pool.ParallelFor(items, GrainFor(keys * heads_ * 2 * width / items),
                        [&](size_t begin, size_t end, int thread) {
                          for (size_t item = begin; item < end; ++item) {
                            const RowGroup& g = groups[item / splits];
                            const size_t head = item % splits * heads_per_split;
                            if (head >= heads_) continue;
                            AttendGroup(exec, rows.subspan(g.begin, g.end - g.begin),
                                        s.absorbed.data() + g.begin * heads_ * width,
                                        s.context.data() + g.begin * heads_ * rank_, head,
                                        std::min(heads_, head + heads_per_split),
                                        s.threads[static_cast<size_t>(thread)]);
                          }
                        });
}

void Mla::Forward(const Exec& exec, std::span<const StepRow> rows, const float* x,
                  const float* turns, MlaScratch& s, float* y) const {
  Project(exec, rows, x, turns, s);
  Absorb(exec, rows.size(), turns, s);
  AttendAll(exec, rows, s);
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
