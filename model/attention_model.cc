// The forward pass of the attention side, block by block as docs/formats.md §1.1 writes it.
#include <algorithm>

#include "model/blocks/layer.h"
#include "model/fingerprint.h"
#include "model/revision.h"
#include "model/runtime.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

// Buffers of one step, kept between steps.
struct StepScratch {
  std::vector<float> residual;        // [rows, hidden]
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
};

class DeepseekV3 final : public AttentionModel {
 public:
  static absl::StatusOr<std::unique_ptr<AttentionModel>> Load(const Options& options);

  const Config& config() const override { return config_; }
  const Profile& profile() const override { return profile_; }
  const std::string& revision() const override { return revision_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  const LaneStateDeclaration& lane_state() const override { return lane_state_; }
  using AttentionModel::RunStep;
  StepResult RunStep(std::span<const StepRow> rows, ExpertBackend& experts, base::ThreadPool& pool,
                     Trace* trace) const override;

 private:
  absl::Status LoadWeights(const Checkpoint& checkpoint, bool masked_gate_group_zero);
  void Start(std::span<const StepRow> rows) const;
  void Normalise(const Exec& exec, const std::vector<float>& weight, size_t rows) const;
  void AddToResidual(const Exec& exec, size_t rows) const;
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
  std::vector<float> final_norm_;
  PackedMatrix head_;            // [vocab, hidden]
  mutable StepScratch scratch_;  // of the one step that may run
};

absl::Status DeepseekV3::LoadWeights(const Checkpoint& checkpoint, bool masked_gate_group_zero) {
  const WeightLoader loader(checkpoint, profile_, arena_);
  const std::string embedding = "model.embed_tokens.weight";
  EM_ASSIGN_OR_RETURN(embedding_,
                      loader.Lookup(embedding, config_.vocab_size, config_.hidden_size));
  for (uint32_t i = 0; i < config_.num_hidden_layers; ++i) {
    EM_ASSIGN_OR_RETURN(Layer layer, Layer::Load(loader, config_, i, masked_gate_group_zero));
    layers_.push_back(std::move(layer));
  }
  EM_ASSIGN_OR_RETURN(final_norm_, loader.Vector("model.norm.weight", config_.hidden_size));
  EM_ASSIGN_OR_RETURN(head_,
                      loader.Matrix(config_.tie_word_embeddings ? embedding : "lm_head.weight",
                                    config_.vocab_size, config_.hidden_size));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<AttentionModel>> DeepseekV3::Load(const Options& options) {
  auto model = std::make_unique<DeepseekV3>();
  EM_ASSIGN_OR_RETURN(model->profile_, ParseProfile(options.profile));
  EM_ASSIGN_OR_RETURN(model->kernels_, KernelsFor(options.isa));
  EM_ASSIGN_OR_RETURN(model->config_, LoadConfig(options.directory));
  const Config& config = model->config_;
  EM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(options.directory));
  EM_RETURN_IF_ERROR(model->LoadWeights(*checkpoint, options.masked_gate_group_zero));
  EM_ASSIGN_OR_RETURN(model->revision_,
                      checkpoint->Revision(RevisionOptions(options.masked_gate_group_zero)));
  model->rope_ = Rope(config);
  model->fingerprint_ = Fingerprint(model->profile_, *model->kernels_);
  const size_t entry = config.kv_lora_rank + config.qk_rope_head_dim;
  model->lane_state_.streams = {
      {"mla_latent", LaneStreamKind::kTokenPages, config.num_hidden_layers,
       static_cast<uint32_t>(entry * DtypeBytes(model->profile_.kv)), kPagePositions, 1}};
  return model;
}

// Embedding rows and rope turns of every row.
void DeepseekV3::Start(std::span<const StepRow> rows) const {
  StepScratch& s = scratch_;
  const size_t hidden = config_.hidden_size;
  s.residual.resize(rows.size() * hidden);
  s.turns.resize(rows.size() * rope_.dims());
  for (size_t r = 0; r < rows.size(); ++r) {
    embedding_.Read(rows[r].token, s.residual.data() + r * hidden);
    rope_.Turns(rows[r].position, s.turns.data() + r * rope_.dims());
  }
}

// x = rms(residual; weight), and its rounded copy.
void DeepseekV3::Normalise(const Exec& exec, const std::vector<float>& weight, size_t rows) const {
  StepScratch& s = scratch_;
  const size_t hidden = config_.hidden_size;
  s.x.resize(rows * hidden);
  s.rounded.resize(rows * hidden);
  exec.pool.ParallelFor(rows, GrainFor(4 * hidden), [&](size_t begin, size_t end, int) {
    for (size_t r = begin; r < end; ++r) {
      float* x = s.x.data() + r * hidden;
      exec.kernels.rms_norm(s.residual.data() + r * hidden, weight.data(), config_.rms_norm_eps,
                            hidden, x);
      std::copy_n(x, hidden, s.rounded.data() + r * hidden);
    }
  });
  RoundActivations(exec.kernels, exec.profile, s.rounded.data(), rows * hidden);
}

void DeepseekV3::AddToResidual(const Exec& exec, size_t rows) const {
  StepScratch& s = scratch_;
  exec.kernels.add(s.residual.data(), s.y.data(), rows * config_.hidden_size, s.residual.data());
}

// Experts and weights of every row; a row whose scores are not numbers dies.
void DeepseekV3::Choose(const Exec& exec, const Layer& layer, uint32_t index,
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

// A dead row's later rows of the same lane attend to what it left, so they are dead too.
void SpreadDeath(std::span<const StepRow> rows, std::vector<uint8_t>& alive) {
  for (size_t r = 1; r < rows.size(); ++r) {
    if (rows[r].lane == rows[r - 1].lane && alive[r - 1] == 0) alive[r] = 0;
  }
}

// y = routed + shared, in that order.
void DeepseekV3::MixtureOfExperts(const Exec& exec, const Layer& layer, uint32_t index,
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

void DeepseekV3::Head(const Exec& exec, std::span<const StepRow> rows,
                      std::vector<float>& logits) const {
  StepScratch& s = scratch_;
  const size_t hidden = config_.hidden_size;
  size_t wanted = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    if (!rows[r].wants_logits) continue;
    const float* row = s.residual.data() + r * hidden;
    if (wanted != r) std::copy_n(row, hidden, s.residual.data() + wanted * hidden);
    ++wanted;
  }
  Normalise(exec, final_norm_, wanted);
  logits.resize(wanted * config_.vocab_size);
  Linear(exec, head_, s.rounded.data(), hidden, wanted, logits.data(), config_.vocab_size);
}

StepResult DeepseekV3::RunStep(std::span<const StepRow> rows, ExpertBackend& experts,
                               base::ThreadPool& pool, Trace* trace) const {
  const Exec exec{*kernels_, profile_, pool};
  StepResult result;
  result.alive.assign(rows.size(), 1);
  if (rows.empty()) return result;
  StepScratch& s = scratch_;
  s.y.resize(rows.size() * config_.hidden_size);
  if (trace != nullptr) trace->layers.assign(layers_.size(), {});
  Start(rows);
  for (uint32_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    Normalise(exec, layer.input_norm, rows.size());
    layer.attention.Forward(exec, rows, s.rounded.data(), s.turns.data(), s.mla, s.y.data());
    AddToResidual(exec, rows.size());
    Normalise(exec, layer.post_attention_norm, rows.size());
    if (layer.dense) {
      ApplySwiGlu(exec, *layer.dense, s.rounded.data(), rows.size(), s.y.data(), s.swiglu);
    } else {
      MixtureOfExperts(exec, layer, i, rows, experts, result.alive);
    }
    AddToResidual(exec, rows.size());
    if (trace != nullptr) {
      trace->layers[i].residual = s.residual;
      if (layer.gate) trace->layers[i].expert_ids = s.expert_ids;
      if (layer.gate) trace->layers[i].expert_weights = s.expert_weights;
    }
  }
  Head(exec, rows, result.logits);
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionModel>> AttentionModel::Load(const Options& options) {
  return DeepseekV3::Load(options);
}

}  // namespace expertmesh::model
