// The forward pass of the attention side, block by block as docs/formats.md §1.1 and
// docs/model-family.md §4.3 write it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "model/blocks/lane_entries.h"
#include "model/blocks/layer.h"
#include "model/engram_hash.h"
#include "model/fingerprint.h"
#include "model/local_memory.h"
#include "model/revision.h"
#include "model/runtime.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

// Buffers of one step, kept between steps.
struct StepScratch {
  std::vector<float> streams;         // [rows, n·hidden], the residual
  std::vector<float> collapsed;       // [rows, hidden], with several streams
  std::vector<float> x;               // [rows, hidden], normalised
  std::vector<float> rounded;         // [rows, hidden], x in the activation type
  std::vector<float> y;               // [rows, hidden], a block's output
  std::vector<float> shared;          // [rows, hidden]
  std::vector<float> turns;           // [rows, rope dims]
  std::vector<float> gate_scores;     // [rows, experts]
  std::vector<uint16_t> expert_ids;   // [rows, top_k]
  std::vector<float> expert_weights;  // [rows, top_k]
  std::vector<float> swiglu;          // [rows, 2·width]
  MlaScratch mla;
  IndexerScratch indexer;
  Selection selection;  // of the nearest layer with an indexer
  MixScratch mixes;
  EngramScratch engram;
};

class Decoder final : public AttentionModel {
 public:
  static absl::StatusOr<std::unique_ptr<AttentionModel>> Load(const Options& options);

  const Config& config() const override { return config_; }
  const Profile& profile() const override { return profile_; }
  const std::string& revision() const override { return revision_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  const LaneStateDeclaration& lane_state() const override { return lane_state_; }
  using AttentionModel::RunStep;
  StepResult RunStep(std::span<const StepRow> rows, ExpertBackend& experts, base::ThreadPool& pool,
                     Trace* trace, MemoryBackend* memory) const override;

 private:
  absl::Status LoadWeights(const Checkpoint& checkpoint, bool masked_gate_group_zero,
                           PackedWeights* packed);
  size_t stream_width() const { return size_t{config_.hc_mult} * config_.hidden_size; }
  void Start(std::span<const StepRow> rows) const;
  void AskMemory(std::span<const StepRow> rows, MemoryBackend& memory) const;
  void AddMemory(const Exec& exec, const Layer& layer, uint32_t index,
                 std::span<const StepRow> rows, MemoryBackend& memory,
                 std::vector<uint8_t>& alive) const;
  void Normalise(const Exec& exec, const float* from, const std::vector<float>& weight,
                 size_t rows) const;
  void EnterSublayer(const Exec& exec, const std::optional<HyperConnection>& mixes,
                     const std::vector<float>& norm, size_t rows) const;
  void LeaveSublayer(const Exec& exec, const std::optional<HyperConnection>& mixes,
                     size_t rows) const;
  void Attention(const Exec& exec, const Layer& layer, std::span<const StepRow> rows,
                 std::vector<uint8_t>& alive) const;
  void Fill(const Layer& layer, std::span<const StepRow> rows, Trace::Layer& traced) const;
  void Choose(const Exec& exec, const Layer& layer, uint32_t index, std::span<const StepRow> rows,
              std::vector<uint8_t>& alive) const;
  void MixtureOfExperts(const Exec& exec, const Layer& layer, uint32_t index,
                        std::span<const StepRow> rows, ExpertBackend& experts,
                        std::vector<uint8_t>& alive) const;
  void Head(const Exec& exec, std::span<const StepRow> rows, std::vector<float>& logits) const;

  Config config_;
  Profile profile_;
  std::string revision_;
  std::string fingerprint_;
  LaneStateDeclaration lane_state_;
  const KernelTable* kernels_ = nullptr;
  Rope rope_;
  WeightArena arena_;
  WeightLoader::Table embedding_;
  std::vector<Layer> layers_;
  EngramHash hash_;
  std::optional<HeadCollapse> head_collapse_;  // with several streams
  std::vector<float> final_norm_;
  PackedMatrix head_;                    // [vocab, hidden]
  std::unique_ptr<LocalMemory> memory_;  // of RunStep without another; none if nobody asked for it
  mutable StepScratch scratch_;          // of the one step that may run
};

absl::Status Decoder::LoadWeights(const Checkpoint& checkpoint, bool masked_gate_group_zero,
                                  PackedWeights* packed) {
  const WeightLoader loader(checkpoint, profile_, arena_, packed);
  layers_.clear();
  const std::string embedding = "model.embed_tokens.weight";
  EM_ASSIGN_OR_RETURN(embedding_,
                      loader.Lookup(embedding, config_.vocab_size, config_.hidden_size));
  for (uint32_t i = 0; i < config_.num_hidden_layers; ++i) {
    EM_ASSIGN_OR_RETURN(Layer layer, Layer::Load(loader, config_, i, masked_gate_group_zero));
    layers_.push_back(std::move(layer));
  }
  EM_ASSIGN_OR_RETURN(hash_, EngramHash::Load(checkpoint, config_));
  if (config_.hc_mult > 1) {
    EM_ASSIGN_OR_RETURN(head_collapse_, HeadCollapse::Load(loader, config_));
  }
  EM_ASSIGN_OR_RETURN(final_norm_, loader.Vector("model.norm.weight", config_.hidden_size));
  EM_ASSIGN_OR_RETURN(head_,
                      loader.Matrix(config_.tie_word_embeddings ? embedding : "lm_head.weight",
                                    config_.vocab_size, config_.hidden_size));
  return absl::OkStatus();
}

// What a lane keeps: a latent per layer, an index key per layer with an indexer.
LaneStateDeclaration Declare(const Config& config, const Profile& profile) {
  const size_t latent = config.kv_lora_rank + config.qk_rope_head_dim;
  LaneStateDeclaration state;
  state.streams = {{"mla_latent", LaneStreamKind::kTokenPages, config.num_hidden_layers,
                    static_cast<uint32_t>(latent * DtypeBytes(profile.kv)), kPagePositions, 1}};
  if (!config.indexer) return state;
  const auto& full = config.indexer->full;
  const auto layers = static_cast<uint32_t>(std::count(full.begin(), full.end(), true));
  const size_t key = config.indexer->index_head_dim;
  state.streams.push_back({"index_key", LaneStreamKind::kTokenPages, layers,
                           static_cast<uint32_t>(key * DtypeBytes(profile.kv)), kPagePositions, 1});
  return state;
}

absl::StatusOr<std::unique_ptr<AttentionModel>> Decoder::Load(const Options& options) {
  auto model = std::make_unique<Decoder>();
  EM_ASSIGN_OR_RETURN(model->profile_, ParseProfile(options.profile));
  EM_ASSIGN_OR_RETURN(model->kernels_, KernelsFor(options.isa));
  EM_ASSIGN_OR_RETURN(model->config_, LoadConfig(options.directory, options.overrides));
  const Config& config = model->config_;
  EM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(options.directory));
  EM_ASSIGN_OR_RETURN(model->revision_, checkpoint->Revision(RevisionOptions(
                                            options.masked_gate_group_zero, options.overrides)));
  const PackedKey key{options.directory, model->revision_, model->profile_.name, "attention",
                      options.packed_file_bytes_min};
  EM_RETURN_IF_ERROR(LoadPacked(key, model->arena_, [&](PackedWeights* packed) {
    return model->LoadWeights(*checkpoint, options.masked_gate_group_zero, packed);
  }));
  model->rope_ = Rope(config);
  model->fingerprint_ = Fingerprint(model->profile_, *model->kernels_);
  model->lane_state_ = Declare(config, model->profile_);
  if (config.engram && options.local_memory) {
    EM_ASSIGN_OR_RETURN(model->memory_, LocalMemory::Load(options.directory, config));
  }
  return model;
}

// Embedding rows in every stream, and rope turns of every row.
void Decoder::Start(std::span<const StepRow> rows) const {
  StepScratch& s = scratch_;
  const size_t hidden = config_.hidden_size;
  s.streams.resize(rows.size() * stream_width());
  s.turns.resize(rows.size() * rope_.dims());
  for (size_t r = 0; r < rows.size(); ++r) {
    float* row = s.streams.data() + r * stream_width();
    embedding_.Read(rows[r].token, row);
    for (size_t i = 1; i < config_.hc_mult; ++i) std::copy_n(row, hidden, row + i * hidden);
    rope_.Turns(rows[r].position, s.turns.data() + r * rope_.dims());
  }
}

// Names the table rows of all Engram layers.
void Decoder::AskMemory(std::span<const StepRow> rows, MemoryBackend& memory) const {
  std::vector<uint64_t>& ids = scratch_.engram.row_ids;
  const size_t columns = hash_.columns();
  ids.resize(hash_.layers() * rows.size() * columns);
  MemoryCall call{rows.size(), columns, config_.engram->head_dim, {}};
  for (size_t place = 0; place < hash_.layers(); ++place) {
    uint64_t* first = ids.data() + place * rows.size() * columns;
    for (size_t r = 0; r < rows.size(); ++r) {
      const StepRow& row = rows[r];
      if (row.previous.size() < std::min(hash_.lookback(), IndexOf(row))) {
        std::fprintf(stderr, "row %zu at place %zu of its lane came with %zu previous tokens\n", r,
                     IndexOf(row), row.previous.size());
        std::abort();
      }
      hash_.Rows(place, row.previous, row.token, first + r * columns);
    }
    call.layers.push_back({config_.engram->layer_ids[place], {first, rows.size() * columns}});
  }
  memory.Begin(call);
}

// A dead row's later rows of the same lane attend to what it left, so they are dead too.
void SpreadDeath(std::span<const StepRow> rows, std::vector<uint8_t>& alive) {
  for (size_t r = 1; r < rows.size(); ++r) {
    if (rows[r].lane == rows[r - 1].lane && alive[r - 1] == 0) alive[r] = 0;
  }
}

// docs/model-family.md §4.5: outside mHC, before anything else of the layer.
void Decoder::AddMemory(const Exec& exec, const Layer& layer, uint32_t index,
                        std::span<const StepRow> rows, MemoryBackend& memory,
                        std::vector<uint8_t>& alive) const {
  EngramScratch& s = scratch_.engram;
  s.entries.resize(rows.size() * hash_.columns() * config_.engram->head_dim);
  memory.Finish(index, s.entries, alive);
  SpreadDeath(rows, alive);
  layer.memory->AddTo(exec, rows.size(), alive, s, scratch_.streams.data());
}

// x = rms(from; weight), and its rounded copy.
void Decoder::Normalise(const Exec& exec, const float* from, const std::vector<float>& weight,
                        size_t rows) const {
  StepScratch& s = scratch_;
  const size_t hidden = config_.hidden_size;
  s.x.resize(rows * hidden);
  s.rounded.resize(rows * hidden);
  exec.pool.ParallelFor(rows, GrainFor(4 * hidden), [&](size_t begin, size_t end, int) {
    for (size_t r = begin; r < end; ++r) {
      float* x = s.x.data() + r * hidden;
      exec.kernels.rms_norm(from + r * hidden, weight.data(), config_.rms_norm_eps, hidden, x);
      std::copy_n(x, hidden, s.rounded.data() + r * hidden);
    }
  });
  RoundActivations(exec.kernels, exec.profile, s.rounded.data(), rows * hidden);
}

// x = rms(u; norm), u the collapsed streams.
void Decoder::EnterSublayer(const Exec& exec, const std::optional<HyperConnection>& mixes,
                            const std::vector<float>& norm, size_t rows) const {
  StepScratch& s = scratch_;
  if (!mixes) return Normalise(exec, s.streams.data(), norm, rows);
  s.collapsed.resize(rows * config_.hidden_size);
  mixes->Collapse(exec, s.streams.data(), rows, s.mixes, s.collapsed.data());
  Normalise(exec, s.collapsed.data(), norm, rows);
}

// The streams take y in.
void Decoder::LeaveSublayer(const Exec& exec, const std::optional<HyperConnection>& mixes,
                            size_t rows) const {
  StepScratch& s = scratch_;
  if (mixes) return mixes->Expand(exec, s.y.data(), rows, s.mixes, s.streams);
  exec.kernels.add(s.streams.data(), s.y.data(), rows * config_.hidden_size, s.streams.data());
}

void Decoder::Attention(const Exec& exec, const Layer& layer, std::span<const StepRow> rows,
                        std::vector<uint8_t>& alive) const {
  StepScratch& s = scratch_;
  layer.attention.Prepare(exec, rows, s.rounded.data(), s.turns.data(), s.mla);
  if (layer.indexer) {
    layer.indexer->Select(exec, rows, s.x.data(), s.mla.latents.data(), s.turns.data(), s.indexer,
                          s.selection, alive);
    SpreadDeath(rows, alive);
  }
  layer.attention.Attend(exec, rows, s.turns.data(), s.selection, s.mla, s.y.data());
}

// Experts and weights of every row; a row whose scores are not numbers dies.
void Decoder::Choose(const Exec& exec, const Layer& layer, uint32_t index,
                     std::span<const StepRow> rows, std::vector<uint8_t>& alive) const {
  StepScratch& s = scratch_;
  const GateRule& rule = layer.gate->rule;
  s.gate_scores.resize(rows.size() * rule.experts);
  s.expert_ids.resize(rows.size() * rule.top_k);
  s.expert_weights.resize(rows.size() * rule.top_k);
  Linear(exec, layer.gate->weight, s.x.data(), config_.hidden_size, rows.size(),
         s.gate_scores.data(), rule.experts);
  exec.pool.ParallelFor(
      rows.size(), GrainFor(16 * rule.experts), [&](size_t begin, size_t end, int) {
        for (size_t r = begin; r < end; ++r) {
          std::span<const uint16_t> forced;
          if (rows[r].forced_experts != nullptr && index < rows[r].forced_experts->size()) {
            forced = (*rows[r].forced_experts)[index];
          }
          const bool chosen = SelectExperts(
              rule, s.gate_scores.data() + r * rule.experts, layer.gate->bias.data(), forced,
              s.expert_ids.data() + r * rule.top_k, s.expert_weights.data() + r * rule.top_k);
          if (!chosen) alive[r] = 0;
        }
      });
}

// y = routed + shared, in that order.
void Decoder::MixtureOfExperts(const Exec& exec, const Layer& layer, uint32_t index,
                               std::span<const StepRow> rows, ExpertBackend& experts,
                               std::vector<uint8_t>& alive) const {
  StepScratch& s = scratch_;
  const size_t hidden = config_.hidden_size;
  Choose(exec, layer, index, rows, alive);
  SpreadDeath(rows, alive);
  experts.Begin({index, rows.size(), hidden, layer.gate->rule.top_k, s.x, s.expert_ids,
                 s.expert_weights, alive});
  if (layer.shared) {
    s.shared.resize(rows.size() * hidden);
    ApplySwiGlu(exec, *layer.shared, s.rounded.data(), rows.size(), s.shared.data(), s.swiglu);
  }
  experts.Finish(s.y, alive);
  SpreadDeath(rows, alive);
  for (size_t r = 0; r < rows.size(); ++r) {
    float* y = s.y.data() + r * hidden;
    if (alive[r] == 0) {
      std::fill_n(y, hidden, 0.0f);
    } else if (layer.shared) {
      exec.kernels.add(y, s.shared.data() + r * hidden, hidden, y);
    }
  }
}

void Decoder::Head(const Exec& exec, std::span<const StepRow> rows,
                   std::vector<float>& logits) const {
  StepScratch& s = scratch_;
  const size_t width = stream_width();
  size_t wanted = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    if (!rows[r].wants_logits) continue;
    const float* row = s.streams.data() + r * width;
    if (wanted != r) std::copy_n(row, width, s.streams.data() + wanted * width);
    ++wanted;
  }
  const float* last = s.streams.data();
  if (head_collapse_) {
    s.collapsed.resize(wanted * config_.hidden_size);
    head_collapse_->Collapse(exec, last, wanted, s.mixes, s.collapsed.data());
    last = s.collapsed.data();
  }
  Normalise(exec, last, final_norm_, wanted);
  logits.resize(wanted * config_.vocab_size);
  Linear(exec, head_, s.rounded.data(), config_.hidden_size, wanted, logits.data(),
         config_.vocab_size);
}

// What a layer left, for the trace.
void Decoder::Fill(const Layer& layer, std::span<const StepRow> rows, Trace::Layer& traced) const {
  const StepScratch& s = scratch_;
  traced.residual = s.streams;
  traced.attended = s.mla.attended;
  if (layer.gate) traced.expert_ids = s.expert_ids;
  if (layer.gate) traced.expert_weights = s.expert_weights;
  if (!layer.indexer) return;
  const size_t top = s.selection.top;
  traced.positions.assign(rows.size() * top, -1);
  for (size_t r = 0; r < rows.size(); ++r) {
    const uint64_t first = rows[r].lane->first_position();
    const bool dense = s.selection.IsDense(r);
    const size_t count = dense ? IndexOf(rows[r]) + 1 : s.selection.Of(r).size();
    for (size_t i = 0; i < count; ++i) {
      const uint64_t index = dense ? i : s.selection.Of(r)[i];
      traced.positions[r * top + i] = static_cast<int32_t>(first + index);
    }
  }
}

StepResult Decoder::RunStep(std::span<const StepRow> rows, ExpertBackend& experts,
                            base::ThreadPool& pool, Trace* trace, MemoryBackend* memory) const {
  const Exec exec{*kernels_, profile_, pool};
  StepResult result;
  result.alive.assign(rows.size(), 1);
  if (rows.empty()) return result;
  StepScratch& s = scratch_;
  s.y.resize(rows.size() * config_.hidden_size);
  s.selection.top = 0;
  if (trace != nullptr) trace->layers.assign(layers_.size(), {});
  if (memory == nullptr) memory = memory_.get();
  if (config_.engram) AskMemory(rows, *memory);
  Start(rows);
  for (uint32_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    if (layer.memory) AddMemory(exec, layer, i, rows, *memory, result.alive);
    EnterSublayer(exec, layer.attention_mixes, layer.input_norm, rows.size());
    Attention(exec, layer, rows, result.alive);
    LeaveSublayer(exec, layer.attention_mixes, rows.size());
    for (const uint32_t count : s.mla.attended) result.attended_entries += count;
    EnterSublayer(exec, layer.ffn_mixes, layer.post_attention_norm, rows.size());
    if (layer.dense) {
      ApplySwiGlu(exec, *layer.dense, s.rounded.data(), rows.size(), s.y.data(), s.swiglu);
    } else {
      MixtureOfExperts(exec, layer, i, rows, experts, result.alive);
    }
    LeaveSublayer(exec, layer.ffn_mixes, rows.size());
    if (trace != nullptr) Fill(layer, rows, trace->layers[i]);
  }
  Head(exec, rows, result.logits);
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionModel>> AttentionModel::Load(const Options& options) {
  return Decoder::Load(options);
}

}  // namespace expertmesh::model
