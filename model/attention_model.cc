// The forward pass of the attention side, block by block as docs/formats.md §1.1 and
// docs/model-family.md §4.3 write it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>

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

// Buffers of one micro-batch, kept between steps.
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
  std::vector<float> last;            // [rows with logits, n·hidden], streams of the step
  std::vector<float> memory_entries;  // [rows of the step, columns · width], of this layer
};

// A micro-batch: some rows of the step, one after another. Where a part waits for its experts, the
// next one goes through the same layer.
struct StepPart {
  uint32_t index = 0;
  size_t first = 0;  // its first row in the step
  std::span<const StepRow> rows;
  std::span<uint8_t> alive;
  StepScratch& s;
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
                     const StepOptions& options) const override;

 private:
  absl::Status LoadWeights(const Checkpoint& checkpoint, bool masked_gate_group_zero,
                           PackedWeights* packed);
  size_t stream_width() const { return size_t{config_.hc_mult} * config_.hidden_size; }
  std::vector<StepPart> Cut(std::span<const StepRow> rows, std::span<uint8_t> alive,
                            size_t count) const;
  void Start(const StepPart& part) const;
  void AskMemory(std::span<const StepRow> rows, MemoryBackend& memory) const;
  void AddMemory(const Exec& exec, const Layer& layer, const StepPart& part) const;
  void Normalise(const Exec& exec, const float* from, const std::vector<float>& weight, size_t rows,
                 StepScratch& s) const;
  void EnterSublayer(const Exec& exec, const std::optional<HyperConnection>& mixes,
                     const std::vector<float>& norm, const StepPart& part) const;
  void LeaveSublayer(const Exec& exec, const std::optional<HyperConnection>& mixes,
                     const StepPart& part) const;
  void Attention(const Exec& exec, const Layer& layer, const StepPart& part) const;
  void Fill(const Layer& layer, const StepPart& part, Trace::Layer& traced) const;
  void Choose(const Exec& exec, const Layer& layer, uint32_t index, const StepPart& part) const;
  void AskExperts(const Exec& exec, const Layer& layer, uint32_t index, const StepPart& part,
                  ExpertBackend& experts) const;
  void AddExperts(const Exec& exec, const Layer& layer, const StepPart& part,
                  ExpertBackend& experts) const;
  void Head(const Exec& exec, std::span<const StepPart> parts, std::vector<float>& logits) const;

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
  // Of the one step that may run: a part's at its index. The first also holds what all parts share.
  mutable std::deque<StepScratch> scratch_ = std::deque<StepScratch>(1);
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

// `count` parts of almost equal size, fewer if there are not so many rows.
std::vector<StepPart> Decoder::Cut(std::span<const StepRow> rows, std::span<uint8_t> alive,
                                   size_t count) const {
  count = std::clamp<size_t>(count, 1, rows.size());
  if (scratch_.size() < count) scratch_.resize(count);
  std::vector<StepPart> parts;
  for (size_t i = 0; i < count; ++i) {
    const size_t first = rows.size() * i / count;
    const size_t size = rows.size() * (i + 1) / count - first;
    parts.push_back({static_cast<uint32_t>(i), first, rows.subspan(first, size),
                     alive.subspan(first, size), scratch_[i]});
  }
  return parts;
}

// Embedding rows in every stream, and rope turns of every row.
void Decoder::Start(const StepPart& part) const {
  const std::span<const StepRow> rows = part.rows;
  StepScratch& s = part.s;
  s.y.resize(rows.size() * config_.hidden_size);
  s.selection.top = 0;
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
  std::vector<uint64_t>& ids = scratch_.front().engram.row_ids;
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
void SpreadDeath(std::span<const StepRow> rows, std::span<uint8_t> alive) {
  for (size_t r = 1; r < rows.size(); ++r) {
    if (rows[r].lane == rows[r - 1].lane && alive[r - 1] == 0) alive[r] = 0;
  }
}

// docs/model-family.md §4.5: outside mHC, before anything else of the layer. The entries of all
// rows of the step are in the first scratch.
void Decoder::AddMemory(const Exec& exec, const Layer& layer, const StepPart& part) const {
  EngramScratch& s = part.s.engram;
  const std::vector<float>& all = scratch_.front().memory_entries;
  const size_t width = hash_.columns() * config_.engram->head_dim;
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(part.first * width);
  s.entries.assign(first, first + static_cast<std::ptrdiff_t>(part.rows.size() * width));
  layer.memory->AddTo(exec, part.rows.size(), part.alive, s, part.s.streams.data());
}

// x = rms(from; weight), and its rounded copy.
void Decoder::Normalise(const Exec& exec, const float* from, const std::vector<float>& weight,
                        size_t rows, StepScratch& s) const {
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
                            const std::vector<float>& norm, const StepPart& part) const {
  StepScratch& s = part.s;
  const size_t rows = part.rows.size();
  if (!mixes) return Normalise(exec, s.streams.data(), norm, rows, s);
  s.collapsed.resize(rows * config_.hidden_size);
  mixes->Collapse(exec, s.streams.data(), rows, s.mixes, s.collapsed.data());
  Normalise(exec, s.collapsed.data(), norm, rows, s);
}

// The streams take y in.
void Decoder::LeaveSublayer(const Exec& exec, const std::optional<HyperConnection>& mixes,
                            const StepPart& part) const {
  StepScratch& s = part.s;
  const size_t rows = part.rows.size();
  if (mixes) return mixes->Expand(exec, s.y.data(), rows, s.mixes, s.streams);
  exec.kernels.add(s.streams.data(), s.y.data(), rows * config_.hidden_size, s.streams.data());
}

void Decoder::Attention(const Exec& exec, const Layer& layer, const StepPart& part) const {
  StepScratch& s = part.s;
  layer.attention.Prepare(exec, part.rows, s.rounded.data(), s.turns.data(), s.mla);
  if (layer.indexer) {
    layer.indexer->Select(exec, part.rows, s.x.data(), s.mla.latents.data(), s.turns.data(),
                          s.indexer, s.selection, part.alive);
    SpreadDeath(part.rows, part.alive);
  }
  layer.attention.Attend(exec, part.rows, s.turns.data(), s.selection, s.mla, s.y.data());
}

// Experts and weights of every row; a row whose scores are not numbers dies.
void Decoder::Choose(const Exec& exec, const Layer& layer, uint32_t index,
                     const StepPart& part) const {
  StepScratch& s = part.s;
  const std::span<const StepRow> rows = part.rows;
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
          if (!chosen) part.alive[r] = 0;
        }
      });
}

// Sends the rows to their experts; the shared one runs here meanwhile, and begins with the threads
// that choosing and sending leave free: both take one thread most of their time.
void Decoder::AskExperts(const Exec& exec, const Layer& layer, uint32_t index, const StepPart& part,
                         ExpertBackend& experts) const {
  StepScratch& s = part.s;
  const size_t hidden = config_.hidden_size;
  const size_t rows = part.rows.size();
  const auto ask = [&] {
    Choose(exec, layer, index, part);
    SpreadDeath(part.rows, part.alive);
    experts.Begin({index, part.index, part.first, rows, hidden, layer.gate->rule.top_k, s.x,
                   s.expert_ids, s.expert_weights, part.alive, &exec.pool});
  };
  if (!layer.shared) return ask();
  s.shared.resize(rows * hidden);
  ApplySwiGlu(exec, *layer.shared, s.rounded.data(), rows, s.shared.data(), s.swiglu, ask);
}

// The streams take routed + shared in, summed in that order.
void Decoder::AddExperts(const Exec& exec, const Layer& layer, const StepPart& part,
                         ExpertBackend& experts) const {
  StepScratch& s = part.s;
  const size_t hidden = config_.hidden_size;
  experts.Finish(part.index, s.y, part.alive);
  for (size_t r = 0; r < part.rows.size(); ++r) {
    float* y = s.y.data() + r * hidden;
    if (part.alive[r] == 0) {
      std::fill_n(y, hidden, 0.0f);
    } else if (layer.shared) {
      exec.kernels.add(y, s.shared.data() + r * hidden, hidden, y);
    }
  }
  LeaveSublayer(exec, layer.ffn_mixes, part);
}

void Decoder::Head(const Exec& exec, std::span<const StepPart> parts,
                   std::vector<float>& logits) const {
  StepScratch& s = scratch_.front();
  const size_t width = stream_width();
  size_t wanted = 0;
  for (const StepPart& part : parts) {
    for (size_t r = 0; r < part.rows.size(); ++r) {
      if (!part.rows[r].wants_logits) continue;
      s.last.resize(std::max(s.last.size(), (wanted + 1) * width));
      std::copy_n(part.s.streams.data() + r * width, width, s.last.data() + wanted * width);
      ++wanted;
    }
  }
  const float* last = s.last.data();
  if (head_collapse_) {
    s.collapsed.resize(wanted * config_.hidden_size);
    head_collapse_->Collapse(exec, last, wanted, s.mixes, s.collapsed.data());
    last = s.collapsed.data();
  }
  Normalise(exec, last, final_norm_, wanted, s);
  logits.resize(wanted * config_.vocab_size);
  Linear(exec, head_, s.rounded.data(), config_.hidden_size, wanted, logits.data(),
         config_.vocab_size);
}

// What a layer left, for the trace.
void Decoder::Fill(const Layer& layer, const StepPart& part, Trace::Layer& traced) const {
  const StepScratch& s = part.s;
  const std::span<const StepRow> rows = part.rows;
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
                            base::ThreadPool& pool, const StepOptions& options) const {
  const Exec exec{*kernels_, profile_, pool};
  StepResult result;
  result.alive.assign(rows.size(), 1);
  if (rows.empty()) return result;
  Trace* const trace = options.trace;
  const std::vector<StepPart> parts =
      Cut(rows, result.alive, trace == nullptr ? options.micro_batches : 1);
  if (trace != nullptr) trace->layers.assign(layers_.size(), {});
  MemoryBackend* const memory = options.memory == nullptr ? memory_.get() : options.memory;
  if (config_.engram) AskMemory(rows, *memory);
  for (const StepPart& part : parts) Start(part);
  // What the experts of layer `i` answered, where it has some.
  const auto finish = [&](uint32_t i, const StepPart& part) {
    if (!layers_[i].dense) AddExperts(exec, layers_[i], part, experts);
    SpreadDeath(rows, result.alive);
    if (trace != nullptr) Fill(layers_[i], part, trace->layers[i]);
  };
  for (uint32_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    for (const StepPart& part : parts) {
      if (i > 0) finish(i - 1, part);
      if (layer.memory && part.index == 0) {
        std::vector<float>& entries = scratch_.front().memory_entries;
        entries.resize(rows.size() * hash_.columns() * config_.engram->head_dim);
        memory->Finish(i, entries, result.alive);
        SpreadDeath(rows, result.alive);
      }
      if (layer.memory) AddMemory(exec, layer, part);
      EnterSublayer(exec, layer.attention_mixes, layer.input_norm, part);
      Attention(exec, layer, part);
      LeaveSublayer(exec, layer.attention_mixes, part);
      for (const uint32_t count : part.s.mla.attended) result.attended_entries += count;
      EnterSublayer(exec, layer.ffn_mixes, layer.post_attention_norm, part);
      if (!layer.dense) {
        AskExperts(exec, layer, i, part, experts);
        continue;
      }
      ApplySwiGlu(exec, *layer.dense, part.s.rounded.data(), part.rows.size(), part.s.y.data(),
                  part.s.swiglu);
      LeaveSublayer(exec, layer.ffn_mixes, part);
    }
  }
  for (const StepPart& part : parts) finish(static_cast<uint32_t>(layers_.size() - 1), part);
  Head(exec, parts, result.logits);
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionModel>> AttentionModel::Load(const Options& options) {
  return Decoder::Load(options);
}

}  // namespace expertmesh::model
