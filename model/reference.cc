#include "model/reference.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/blocks/gate.h"
#include "model/combine_tree.h"
#include "model/engram_hash.h"
#include "model/kernels/reference/reference_kernels.h"
#include "services/base/status.h"

namespace expertmesh::model {

using reference::Linear;
using reference::RmsNorm;

absl::StatusOr<std::unique_ptr<ReferenceModel>> ReferenceModel::Load(const std::string& directory,
                                                                     bool masked_gate_group_zero) {
  std::unique_ptr<ReferenceModel> model(new ReferenceModel());
  model->masked_gate_group_zero_ = masked_gate_group_zero;
  EM_ASSIGN_OR_RETURN(model->config_, LoadConfig(directory));
  EM_ASSIGN_OR_RETURN(model->checkpoint_, Checkpoint::Open(directory));
  for (const TensorSpec& spec : TensorSpecs(model->config_)) {
    EM_ASSIGN_OR_RETURN(StoredMatrix weight, model->checkpoint_->Weight(spec));
    std::vector<float> row(weight.columns);
    for (uint64_t r = 0; r < weight.rows; ++r) {
      EM_RETURN_IF_ERROR(DecodeRows(weight, r, 1, row.data()));
    }
    model->weights_.emplace(spec.name, std::move(weight));
  }
  for (const HashTensorSpec& spec : EngramHashSpecs(model->config_)) {
    EM_ASSIGN_OR_RETURN(model->integers_[spec.name], model->checkpoint_->Integers(spec));
  }
  EM_RETURN_IF_ERROR(EngramHash::Load(*model->checkpoint_, model->config_).status());
  return model;
}

std::vector<float> ReferenceModel::Weight(const std::string& name) const {
  const StoredMatrix& stored = weights_.at(name);
  std::vector<float> values(stored.rows * stored.columns);
  DecodeRows(stored, 0, stored.rows, values.data()).IgnoreError();  // Load has seen every row
  return values;
}

// docs/formats.md §1.6; the sum over experts is the combine tree.
std::vector<float> ReferenceModel::MixtureOfExperts(uint32_t layer, const std::vector<float>& x,
                                                    Trace::Layer* trace) const {
  const std::string mlp = absl::StrCat("model.layers.", layer, ".mlp.");
  const auto expert = [&](const std::string& prefix) {
    return reference::SwiGlu(Weight(absl::StrCat(prefix, "gate_proj.weight")),
                             Weight(absl::StrCat(prefix, "up_proj.weight")),
                             Weight(absl::StrCat(prefix, "down_proj.weight")), x);
  };
  const size_t top_k = config_.num_experts_per_tok;
  const GateRule rule{config_.n_routed_experts,
                      top_k,
                      config_.n_group,
                      config_.topk_group,
                      masked_gate_group_zero_,
                      config_.norm_topk_prob,
                      config_.routed_scaling_factor};
  const std::vector<float> z = Linear(Weight(absl::StrCat(mlp, "gate.weight")), x);
  const std::vector<float> bias = Weight(absl::StrCat(mlp, "gate.e_score_correction_bias"));
  std::vector<uint16_t> ids(top_k);
  std::vector<float> weights(top_k);
  if (!SelectExperts(rule, z.data(), bias.data(), {}, ids.data(), weights.data())) {
    return std::vector<float>(x.size(), std::nanf(""));
  }
  if (trace != nullptr) {
    trace->expert_ids.insert(trace->expert_ids.end(), ids.begin(), ids.end());
    trace->expert_weights.insert(trace->expert_weights.end(), weights.begin(), weights.end());
  }
  Rows leaves;
  std::vector<const float*> sums;
  std::vector<base::PartialNode> nodes;
  for (size_t i = 0; i < top_k; ++i) {
    leaves.push_back(expert(absl::StrCat(mlp, "experts.", ids[i], ".")));
    for (float& value : leaves.back()) value *= weights[i];
    nodes.push_back({0, ids[i], 0});
  }
  for (const std::vector<float>& leaf : leaves) sums.push_back(leaf.data());
  std::vector<float> y(x.size());
  FinishTree(nodes, sums.data(), config_.n_routed_experts, y);
  if (config_.n_shared_experts > 0) {
    const std::vector<float> shared = expert(absl::StrCat(mlp, "shared_experts."));
    for (size_t i = 0; i < y.size(); ++i) y[i] += shared[i];
  }
  return y;
}

std::vector<float> ReferenceModel::FeedForward(uint32_t layer, const std::vector<float>& x,
                                               Trace::Layer* trace) const {
  if (config_.IsMoeLayer(layer)) return MixtureOfExperts(layer, x, trace);
  const std::string mlp = absl::StrCat("model.layers.", layer, ".mlp.");
  return reference::SwiGlu(Weight(mlp + "gate_proj.weight"), Weight(mlp + "up_proj.weight"),
                           Weight(mlp + "down_proj.weight"), x);
}

// docs/model-family.md §4.3: collapse, norm, block, expand; with one stream a plain residual.
void ReferenceModel::AddSublayer(const std::string& mixes, const std::string& norm, Rows& streams,
                                 const std::function<Rows(const Rows&)>& block) const {
  const std::vector<float> norm_weight = Weight(norm);
  const reference::MixWeights weights = Mixer(mixes + "fn", mixes + "base", mixes + "scale");
  std::vector<reference::Mixes> mixed;
  Rows x;
  for (const std::vector<float>& row : streams) {
    if (config_.hc_mult == 1) {
      mixed.push_back({{1.0f}, {1.0f}, {1.0f}});
      x.push_back(RmsNorm(row, norm_weight, config_.rms_norm_eps));
    } else {
      mixed.push_back(reference::MixesOf(row, weights, rule()));
      const std::vector<float> u = reference::Collapse(row, mixed.back().pre);
      x.push_back(RmsNorm(u, norm_weight, config_.rms_norm_eps));
    }
  }
  const Rows y = block(x);
  for (size_t t = 0; t < streams.size(); ++t) reference::Expand(mixed[t], y[t], streams[t]);
}

reference::MixWeights ReferenceModel::Mixer(const std::string& fn, const std::string& base,
                                            const std::string& scale) const {
  if (config_.hc_mult == 1) return {};
  return {Weight(fn), Weight(base), Weight(scale)};
}

reference::MixRule ReferenceModel::rule() const {
  return {config_.hc_mult, config_.hc_sinkhorn_iters, config_.hc_eps, config_.rms_norm_eps};
}

std::vector<float> ReferenceModel::Logits(const Rows& streams) const {
  std::vector<float> logits;
  const std::vector<float> norm = Weight("model.norm.weight");
  const std::vector<float> head =
      Weight(config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  const std::string hc = "model.hc_head.hc_";
  const reference::MixWeights weights = Mixer(hc + "fn", hc + "base", hc + "scale");
  for (const std::vector<float>& row : streams) {
    const std::vector<float> u =
        config_.hc_mult == 1 ? row : reference::CollapseHead(row, weights, rule());
    const std::vector<float> row_logits = Linear(head, RmsNorm(u, norm, config_.rms_norm_eps));
    logits.insert(logits.end(), row_logits.begin(), row_logits.end());
  }
  return logits;
}

// Positions [rows, K] of a layer with an indexer of its own, −1 behind the last.
std::vector<int32_t> ReferenceModel::Positions(const Selections& selections,
                                               uint64_t first_position) const {
  std::vector<int32_t> positions;
  for (const std::vector<size_t>& selection : selections) {
    for (size_t i = 0; i < config_.indexer->index_topk; ++i) {
      const bool chosen = i < selection.size();
      positions.push_back(chosen ? static_cast<int32_t>(first_position + selection[i]) : -1);
    }
  }
  return positions;
}

std::vector<float> ReferenceModel::Forward(std::span<const uint32_t> tokens, Trace* trace,
                                           uint64_t first_position) const {
  const size_t hidden = config_.hidden_size;
  const std::vector<float> embedding = Weight("model.embed_tokens.weight");
  Rows streams(tokens.size());
  for (size_t t = 0; t < tokens.size(); ++t) {
    const auto row = embedding.begin() + static_cast<std::ptrdiff_t>(tokens[t] * hidden);
    for (size_t i = 0; i < config_.hc_mult; ++i) {
      streams[t].insert(streams[t].end(), row, row + static_cast<std::ptrdiff_t>(hidden));
    }
  }
  if (trace != nullptr) trace->layers.assign(config_.num_hidden_layers, {});
  Selections selections;  // of the nearest layer with an indexer
  for (uint32_t i = 0; i < config_.num_hidden_layers; ++i) {
    Trace::Layer* const traced = trace == nullptr ? nullptr : &trace->layers[i];
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    if (config_.EngramPlace(i)) {
      for (size_t t = 0; t < tokens.size(); ++t) AddMemory(i, tokens, t, streams[t]);
    }
    AddSublayer(layer + "attn_hc.", layer + "input_layernorm.weight", streams,
                [&](const Rows& x) { return Attention(i, x, first_position, selections); });
    AddSublayer(layer + "ffn_hc.", layer + "post_attention_layernorm.weight", streams,
                [&](const Rows& x) {
                  Rows y;
                  for (const std::vector<float>& row : x) y.push_back(FeedForward(i, row, traced));
                  return y;
                });
    if (traced == nullptr) continue;
    if (config_.HasOwnIndexer(i)) traced->positions = Positions(selections, first_position);
    for (const std::vector<float>& row : streams) {
      traced->residual.insert(traced->residual.end(), row.begin(), row.end());
    }
  }
  return Logits(streams);
}

}  // namespace expertmesh::model
