// Attention of the naive reference: docs/formats.md §1.3 and §2.2, docs/model-family.md §4.4.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/blocks/rope.h"
#include "model/kernels/reference/reference_kernels.h"
#include "model/reference.h"

namespace expertmesh::model {

using reference::Linear;
using reference::RmsNorm;

namespace {

// S(t) = {0 … t} for every t.
std::vector<std::vector<size_t>> AllSeen(size_t tokens) {
  std::vector<std::vector<size_t>> selections(tokens);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t s = 0; s <= t; ++s) selections[t].push_back(s);
  }
  return selections;
}

// weight · (x − mean) / sqrt(variance + 1e-6) + bias.
std::vector<float> LayerNorm(const std::vector<float>& x, const std::vector<float>& weight,
                             const std::vector<float>& bias) {
  double mean = 0, variance = 0;
  for (const float v : x) mean += v / static_cast<double>(x.size());
  for (const float v : x) variance += (v - mean) * (v - mean) / static_cast<double>(x.size());
  std::vector<float> y;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto unit = static_cast<float>((x[i] - mean) / std::sqrt(variance + 1e-6));
    y.push_back(weight[i] * unit + bias[i]);
  }
  return y;
}

// The `count` largest scores, equal ones by position; positions ascending.
std::vector<size_t> Largest(const std::vector<float>& scores, size_t count) {
  std::vector<size_t> order(scores.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  order.resize(std::min(count, order.size()));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace

// The lightning indexer: which positions each token attends to.
ReferenceModel::Selections ReferenceModel::Select(uint32_t layer, const Rows& x,
                                                  const Rows& latents,
                                                  uint64_t first_position) const {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".self_attn.indexer.");
  const auto w = [&](const char* name) { return Weight(absl::StrCat(prefix, name)); };
  const auto wq_b = w("wq_b.weight"), wk = w("wk.weight"), weights = w("weights_proj.weight");
  const auto norm = w("k_norm.weight"), bias = w("k_norm.bias");
  const IndexerConfig& indexer = *config_.indexer;
  const size_t heads = indexer.index_n_heads, width = indexer.index_head_dim;
  const size_t dr = config_.qk_rope_head_dim;
  const Rope rope(config_);
  const auto turn = [&](size_t t, float* head) {
    std::vector<float> turns(dr);
    rope.Turns(first_position + t, turns.data());
    if (indexer.indexer_rope_interleave) {
      Rope::Apply(turns.data(), dr, head);
    } else {
      Rope::ApplyHalfSplit(turns.data(), dr, head);
    }
  };
  Rows keys;
  Selections selections;
  for (size_t t = 0; t < x.size(); ++t) {
    keys.push_back(LayerNorm(Linear(wk, x[t]), norm, bias));
    turn(t, keys.back().data());
    std::vector<float> q = Linear(wq_b, latents[t]);
    for (size_t h = 0; h < heads; ++h) turn(t, q.data() + h * width);
    std::vector<float> head_weights = Linear(weights, x[t]);
    for (float& v : head_weights) v /= std::sqrt(static_cast<float>(heads));
    std::vector<float> scores;
    for (size_t s = 0; s <= t; ++s) {
      float sum = 0;
      for (size_t h = 0; h < heads; ++h) {
        float dot = 0;
        for (size_t i = 0; i < width; ++i) dot += q[h * width + i] * keys[s][i];
        sum += head_weights[h] * std::max(dot, 0.0f);
      }
      scores.push_back(sum / std::sqrt(static_cast<float>(width)) + 0.0f);  // −0 becomes +0
    }
    selections.push_back(Largest(scores, indexer.index_topk));
  }
  return selections;
}

// docs/formats.md §1.3, naive form.
ReferenceModel::Rows ReferenceModel::Attention(uint32_t layer, const Rows& x,
                                               uint64_t first_position,
                                               Selections& selections) const {
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

  Rows latents;
  for (const std::vector<float>& row : x) {
    latents.push_back(latent ? RmsNorm(biased("q_a_proj", Linear(q_a, row)), q_norm, 1e-6f) : row);
  }
  if (config_.HasOwnIndexer(layer)) selections = Select(layer, x, latents, first_position);
  if (!config_.indexer) selections = AllSeen(x.size());

  Rows key_value, key_rope, y;  // [heads·(dn + dv)] and [dr] of every token so far
  for (size_t t = 0; t < x.size(); ++t) {
    std::vector<float> turns(dr);
    rope.Turns(first_position + t, turns.data());
    std::vector<float> q = Linear(q_b, latents[t]);
    const std::vector<float> a = biased("kv_a_proj_with_mqa", Linear(kv_a, x[t]));
    const std::vector<float> c(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(rank));
    key_rope.emplace_back(a.begin() + static_cast<std::ptrdiff_t>(rank), a.end());
    Rope::Apply(turns.data(), dr, key_rope.back().data());
    key_value.push_back(Linear(kv_b, RmsNorm(c, kv_norm, 1e-6f)));

    std::vector<float> out(heads * dv, 0.0f);
    for (size_t h = 0; h < heads; ++h) {
      float* q_head = q.data() + h * (dn + dr);
      Rope::Apply(turns.data(), dr, q_head + dn);
      std::vector<float> p;
      for (const size_t s : selections[t]) {
        float dot = 0;
        for (size_t i = 0; i < dn; ++i) dot += q_head[i] * key_value[s][h * (dn + dv) + i];
        for (size_t i = 0; i < dr; ++i) dot += q_head[dn + i] * key_rope[s][i];
        p.push_back(scale * dot);
      }
      reference::Softmax(p);
      for (size_t rank = 0; rank < p.size(); ++rank) {
        const float* value = key_value[selections[t][rank]].data() + h * (dn + dv) + dn;
        for (size_t i = 0; i < dv; ++i) out[h * dv + i] += p[rank] * value[i];
      }
    }
    y.push_back(biased("o_proj", Linear(o_proj, out)));
  }
  return y;
}

}  // namespace expertmesh::model
