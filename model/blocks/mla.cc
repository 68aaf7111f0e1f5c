#include "model/blocks/mla.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "model/blocks/lane_entries.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr float kLatentNormEps = 1e-6f;  // of q_a and kv_a norms, whatever rms_norm_eps says
constexpr size_t kTilesAtOnce = 8;       // that the threads share
constexpr size_t kBlockEntries = 16;     // scored by one thread, where there are few tiles
constexpr size_t kBlockRanks = 32;       // summed by one thread
// In multiply-adds of a loop over many values: moving one about, and its exponential.
constexpr size_t kWorkOfMoving = 8;
constexpr size_t kWorkOfExp = 16;

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

// Some consecutive rows of one lane, each of which sees one entry more than the one before; or one
// row with a selection.
struct Mla::Rows {
  const LaneState& lane;
  std::span<const uint32_t> selected;  // empty = the first `count`
  size_t rows = 1;
  size_t count = 0;                // entries of the first row
  const float* queries = nullptr;  // [rows, heads, rank + rope]
  float* context = nullptr;        // [rows, heads, rank]
};

// Attends with a few rows, some tiles at a time: scores of blocks of entries, weights tile by tile,
// then sums of blocks of ranks. Neither the threads nor the number of tiles or rows change a bit.
class Mla::RowPass {
 public:
  RowPass(const Mla& mla, const Exec& exec, const Rows& rows, AttendScratch& scratch)
      : m_(mla),
        exec_(exec),
        rows_(rows),
        s_(scratch),
        width_(mla.rank_ + mla.rope_),
        groups_of_row_((mla.heads_ + kHeadLanes - 1) / kHeadLanes),
        groups_(rows.rows * groups_of_row_) {
    const size_t lanes = groups_ * kHeadLanes;
    s_.queries.resize(lanes * width_);
    s_.context.resize(lanes * m_.rank_);
    s_.maxima.resize(lanes);
    s_.sums.resize(lanes);
    s_.scores.resize(kTilesAtOnce * kTileKeys * lanes);
    s_.factors.resize(kTilesAtOnce * lanes);
    s_.entries.resize(kTilesAtOnce * kTileKeys);
  }

  void Run() {
    ForGroups(kWorkOfMoving * width_ * kHeadLanes, [&](size_t g) { Start(g); });
    const size_t all = (entry_count() + kTileKeys - 1) / kTileKeys;
    for (first_ = 0; first_ < all; first_ += kTilesAtOnce) {
      count_ = std::min(kTilesAtOnce, all - first_);
      FindEntries();
      Score();
      ForGroups(count_ * kTileKeys * kHeadLanes * kWorkOfExp, [&](size_t g) { Weigh(g); });
      Sum();
    }
    ForGroups(kWorkOfMoving * m_.rank_ * kHeadLanes, [&](size_t g) { End(g); });
  }

 private:
  // Of the last row, which sees the most.
  size_t entry_count() const { return rows_.count + rows_.rows - 1; }
  // Entries of a tile that the row of a group sees.
  size_t Visible(size_t tile, size_t group) const {
    const size_t first = (first_ + tile) * kTileKeys;
    const size_t end = rows_.count + group / groups_of_row_;
    return end <= first ? 0 : std::min(kTileKeys, end - first);
  }
  // Body: void(size_t group), of sixteen heads of a row.
  template <class Body>
  void ForGroups(size_t work, const Body& body) const {
    exec_.pool.ParallelFor(groups_, GrainFor(work), [&](size_t begin, size_t end, int) {
      for (size_t g = begin; g < end; ++g) body(g);
    });
  }
  float* Scores(size_t tile, size_t group) const {
    return s_.scores.data() + (tile * groups_ + group) * kTileKeys * kHeadLanes;
  }
  float* Factors(size_t tile, size_t group) const {
    return s_.factors.data() + (tile * groups_ + group) * kHeadLanes;
  }

  // Queries as the kernels take them; no entry was seen yet.
  void Start(size_t group) const {
    const size_t head = group % groups_of_row_ * kHeadLanes;
    const size_t row = group / groups_of_row_;
    exec_.kernels.transpose(rows_.queries + (row * m_.heads_ + head) * width_, width_,
                            std::min(kHeadLanes, m_.heads_ - head),
                            s_.queries.data() + group * kHeadLanes * width_, kHeadLanes);
    const size_t lane = group * kHeadLanes;
    std::fill_n(s_.maxima.data() + lane, kHeadLanes, -std::numeric_limits<float>::infinity());
    std::fill_n(s_.sums.data() + lane, kHeadLanes, 0.0f);
  }

  // Of the tiles in hand, wherever they lie.
  void FindEntries() {
    for (size_t t = 0; t < count_; ++t) {
      const size_t first = (first_ + t) * kTileKeys;
      const std::byte** entries = s_.entries.data() + t * kTileKeys;
      const size_t count = std::min(kTileKeys, entry_count() - first);
      if (rows_.selected.empty()) {
        const std::byte* page = rows_.lane.Page(kLatentStream, m_.layer_, first_ + t);
        const size_t bytes = width_ * DtypeBytes(exec_.profile.kv);
        for (size_t i = 0; i < count; ++i) entries[i] = page + i * bytes;
      } else {
        for (size_t i = 0; i < count; ++i) {
          entries[i] = rows_.lane.At(kLatentStream, m_.layer_, rows_.selected[first + i]);
        }
      }
      tiles_[t] = {entries, exec_.profile.kv, count, width_};
    }
  }

  // Also those that only a later row sees: they are not read.
  void Score() const {
    const size_t size = count_ < kTilesAtOnce ? kBlockEntries : kTileKeys;
    const size_t blocks = count_ * kTileKeys / size;
    const auto score = [&](size_t block) {
      const size_t tile = block * size / kTileKeys;
      const size_t entry = block * size % kTileKeys;
      AttendEntries part = tiles_[tile];
      if (entry >= part.count) return;
      part.entries += entry;
      part.count = std::min(size, part.count - entry);
      exec_.kernels.attend_scores(part, groups_, s_.queries.data(), m_.scale_,
                                  Scores(tile, 0) + entry * kHeadLanes);
    };
    exec_.pool.ParallelFor(blocks, GrainFor(size * width_ * kHeadLanes * groups_),
                           [&](size_t begin, size_t end, int) {
                             for (size_t i = begin; i < end; ++i) score(i);
                           });
  }

  void Weigh(size_t group) const {
    float* maxima = s_.maxima.data() + group * kHeadLanes;
    float* sums = s_.sums.data() + group * kHeadLanes;
    for (size_t t = 0; t < count_; ++t) {
      const size_t count = Visible(t, group);
      if (count == 0) continue;
      exec_.kernels.attend_weights(count, Scores(t, group), maxima, sums, Factors(t, group));
    }
  }

  // Groups [first, first + groups) of rows that see just as many entries of the tile.
  void SumTile(size_t tile, size_t first, size_t groups, size_t rank) const {
    AttendEntries entries = tiles_[tile];
    entries.count = Visible(tile, first);
    if (entries.count == 0) return;
    const size_t context_set = kHeadLanes * m_.rank_;
    exec_.kernels.attend_values(entries, groups, Scores(tile, first),
                                first_ + tile == 0 ? nullptr : Factors(tile, first), rank,
                                std::min(rank + kBlockRanks, m_.rank_), context_set,
                                s_.context.data() + first * context_set);
  }

  void Sum() const {
    const auto sum = [&](size_t rank) {
      for (size_t t = 0; t < count_; ++t) {
        if (Visible(t, 0) == Visible(t, groups_ - 1)) {
          SumTile(t, 0, groups_, rank);
          continue;
        }
        for (size_t row = 0; row < rows_.rows; ++row) {
          SumTile(t, row * groups_of_row_, groups_of_row_, rank);
        }
      }
    };
    const size_t blocks = (m_.rank_ + kBlockRanks - 1) / kBlockRanks;
    exec_.pool.ParallelFor(blocks,
                           GrainFor(count_ * kTileKeys * kBlockRanks * kHeadLanes * groups_),
                           [&](size_t begin, size_t end, int) {
                             for (size_t i = begin; i < end; ++i) sum(i * kBlockRanks);
                           });
  }

  void End(size_t group) const {
    const size_t head = group % groups_of_row_ * kHeadLanes;
    const size_t row = group / groups_of_row_;
    const size_t count = std::min(kHeadLanes, m_.heads_ - head);
    // The queries are of no more use.
    float* turned = s_.queries.data() + group * kHeadLanes * width_;
    exec_.kernels.transpose(s_.context.data() + group * kHeadLanes * m_.rank_, kHeadLanes, m_.rank_,
                            turned, width_);
    float* context = rows_.context + (row * m_.heads_ + head) * m_.rank_;
    for (size_t h = 0; h < count; ++h) {
      exec_.kernels.scale(1.0f / s_.sums[group * kHeadLanes + h], turned + h * width_, m_.rank_,
                          context + h * m_.rank_);
    }
    RoundActivations(exec_.kernels, exec_.profile, context, count * m_.rank_);
  }

  const Mla& m_;
  const Exec& exec_;
  const Rows& rows_;
  AttendScratch& s_;
  const size_t width_;
  const size_t groups_of_row_;  // of sixteen heads
  const size_t groups_;         // of all rows
  // The tiles in hand.
  size_t first_ = 0;
  size_t count_ = 0;
  std::array<AttendEntries, kTilesAtOnce> tiles_;
};

// Rows that attend together: two of a lane without a selection, else one.
size_t Mla::CountTogether(std::span<const StepRow> rows, const Selection& selection, size_t r) {
  const bool two = r + 1 < rows.size() && rows[r + 1].lane == rows[r].lane &&
                   selection.IsDense(r) && selection.IsDense(r + 1);
  return two ? 2 : 1;
}

// Many rows: some on each thread. Few: some after others, on all.
void Mla::AttendAll(const Exec& exec, std::span<const StepRow> rows, const Selection& selection,
                    MlaScratch& s) const {
  const size_t width = rank_ + rope_;
  s.context.resize(rows.size() * heads_ * rank_);
  s.attended.resize(rows.size());
  s.threads.resize(static_cast<size_t>(exec.pool.threads()));
  std::vector<Rows> all;
  size_t entries = 0;
  for (size_t r = 0; r < rows.size();) {
    const size_t together = CountTogether(rows, selection, r);
    const auto selected = selection.IsDense(r) ? std::span<const uint32_t>() : selection.Of(r);
    const size_t count = selected.empty() ? IndexOf(rows[r]) + 1 : selected.size();
    all.push_back({*rows[r].lane, selected, together, count, s.absorbed.data() + r * heads_ * width,
                   s.context.data() + r * heads_ * rank_});
    for (size_t i = 0; i < together; ++i) s.attended[r + i] = static_cast<uint32_t>(count + i);
    entries += together * count;
    r += together;
  }
  if (all.size() < 2 * s.threads.size()) {
    for (const Rows& some : all) RowPass(*this, exec, some, s.threads.front()).Run();
    return;
  }
  const size_t work = entries * heads_ * 2 * width / all.size();
  exec.pool.ParallelFor(all.size(), GrainFor(work), [&](size_t begin, size_t end, int thread) {
    base::ThreadPool alone(1);
    const Exec serial{exec.kernels, exec.profile, alone};
    for (size_t i = begin; i < end; ++i) {  // the later rows of a prompt see more: they come first
      const Rows& some = all[all.size() - 1 - i];
      RowPass(*this, serial, some, s.threads[static_cast<size_t>(thread)]).Run();
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
