#include "model/reference.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/blocks/gate.h"
#include "model/blocks/rope.h"
#include "model/combine_tree.h"
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
  return model;
}

std::vector<float> ReferenceModel::Weight(const std::string& name) const {
  const StoredMatrix& stored = weights_.at(name);
  std::vector<float> values(stored.rows * stored.columns);
  DecodeRows(stored, 0, stored.rows, values.data()).IgnoreError();  // Load has seen every row
  return values;
}

// docs/formats.md §1.3, naive form.
ReferenceModel::Rows ReferenceModel::Attention(uint32_t layer, const Rows& x,
                                               uint64_t first_position) const {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".self_attn.");
  const auto w = [&](const char* name) { return Weight(absl::StrCat(prefix, name, ".weight")); };
  const bool latent = config_.q_lora_rank > 0;
  const auto q_a = latent ? w("q_a_proj") : std::vector<float>();
  const auto q_norm = latent ? w("q_a_layernorm") : std::vector<float>();
  const auto q_b = w(latent ? "q_b_proj" : "q_proj");
  const auto kv_a = w("kv_a_proj_with_mqa"), kv_norm = w("kv_a_layernorm"), kv_b = w("kv_b_proj");
  const auto o_proj = w("o_proj");
  const auto biased = [&](const char* name, std::vector<float> row) {
    if (!config_.attention_bias) return row;
    const std::vector<float> bias = Weight(absl::StrCat(prefix, name, ".bias"));
    for (size_t i = 0; i < row.size(); ++i) row[i] += bias[i];
    return row;
  };
  const size_t heads = config_.num_attention_heads, dn = config_.qk_nope_head_dim;
  const size_t dr = config_.qk_rope_head_dim, dv = config_.v_head_dim, rank = config_.kv_lora_rank;
  const float scale = AttentionScale(config_);
  const Rope rope(config_);

  Rows key_value, key_rope, y;  // [heads·(dn + dv)] and [dr] of every token so far
  for (size_t t = 0; t < x.size(); ++t) {
    std::vector<float> turns(dr);
    rope.Turns(first_position + t, turns.data());
    std::vector<float> q =
        Linear(q_b, latent ? RmsNorm(biased("q_a_proj", Linear(q_a, x[t])), q_norm, 1e-6f) : x[t]);
    const std::vector<float> a = biased("kv_a_proj_with_mqa", Linear(kv_a, x[t]));
    const std::vector<float> c(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(rank));
    key_rope.emplace_back(a.begin() + static_cast<std::ptrdiff_t>(rank), a.end());
    Rope::Apply(turns.data(), dr, key_rope.back().data());
    key_value.push_back(Linear(kv_b, RmsNorm(c, kv_norm, 1e-6f)));

    std::vector<float> out(heads * dv, 0.0f);
    for (size_t h = 0; h < heads; ++h) {
      float* q_head = q.data() + h * (dn + dr);
      Rope::Apply(turns.data(), dr, q_head + dn);
      std::vector<float> p(t + 1);
      for (size_t s = 0; s <= t; ++s) {
        float dot = 0;
        for (size_t i = 0; i < dn; ++i) dot += q_head[i] * key_value[s][h * (dn + dv) + i];
        for (size_t i = 0; i < dr; ++i) dot += q_head[dn + i] * key_rope[s][i];
        p[s] = scale * dot;
      }
      reference::Softmax(p);
      for (size_t s = 0; s <= t; ++s) {
        for (size_t i = 0; i < dv; ++i)
          out[h * dv + i] += p[s] * key_value[s][h * (dn + dv) + dn + i];
      }
    }
    y.push_back(biased("o_proj", Linear(o_proj, out)));
  }
  return y;
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

std::vector<float> ReferenceModel::Forward(std::span<const uint32_t> tokens, Trace* trace,
                                           uint64_t first_position) const {
  const size_t hidden = config_.hidden_size;
  const std::string embed = "model.embed_tokens.weight";
  const std::vector<float> embedding = Weight(embed);
  Rows h;
  for (const uint32_t token : tokens) {
    const auto row = embedding.begin() + static_cast<std::ptrdiff_t>(token * hidden);
    h.emplace_back(row, row + static_cast<std::ptrdiff_t>(hidden));
  }
  if (trace != nullptr) trace->layers.assign(config_.num_hidden_layers, {});
  for (uint32_t i = 0; i < config_.num_hidden_layers; ++i) {
    Trace::Layer* const traced = trace == nullptr ? nullptr : &trace->layers[i];
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    const auto add_block = [&](const char* norm_name, const auto& block) {
      const std::vector<float> norm = Weight(absl::StrCat(layer, norm_name));
      Rows x;
      for (const std::vector<float>& row : h) x.push_back(RmsNorm(row, norm, config_.rms_norm_eps));
      const Rows y = block(x);
      for (size_t t = 0; t < h.size(); ++t) {
        for (size_t c = 0; c < hidden; ++c) h[t][c] += y[t][c];
      }
    };
    add_block("input_layernorm.weight",
              [&](const Rows& x) { return Attention(i, x, first_position); });
    add_block("post_attention_layernorm.weight", [&](const Rows& x) {
      Rows y;
      for (const std::vector<float>& row : x) {
        y.push_back(config_.IsMoeLayer(i)
                        ? MixtureOfExperts(i, row, traced)
                        : reference::SwiGlu(Weight(absl::StrCat(layer, "mlp.gate_proj.weight")),
                                            Weight(absl::StrCat(layer, "mlp.up_proj.weight")),
                                            Weight(absl::StrCat(layer, "mlp.down_proj.weight")),
                                            row));
      }
      return y;
    });
    if (traced == nullptr) continue;
    for (const std::vector<float>& row : h) {
      traced->residual.insert(traced->residual.end(), row.begin(), row.end());
    }
  }
  std::vector<float> logits;
  const std::vector<float> norm = Weight("model.norm.weight");
  const std::vector<float> head = Weight(config_.tie_word_embeddings ? embed : "lm_head.weight");
  for (const std::vector<float>& row : h) {
    const std::vector<float> row_logits = Linear(head, RmsNorm(row, norm, config_.rms_norm_eps));
    logits.insert(logits.end(), row_logits.begin(), row_logits.end());
  }
  return logits;
}

}  // namespace expertmesh::model
