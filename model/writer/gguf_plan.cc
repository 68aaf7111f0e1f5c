#include "model/writer/gguf_plan.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr uint64_t kPieceElements = uint64_t{1} << 20;
constexpr uint32_t kGatingSigmoid = 2;
constexpr uint32_t kQuantizationVersion = 2;

// general.file_type of llama.cpp, which only shows it.
uint32_t FileType(GgmlType weights) {
  switch (weights) {
    case GgmlType::kQ8_0:
      return 7;
    case GgmlType::kBf16:
      return 32;
    case GgmlType::kF32:
      break;
  }
  return 0;
}

absl::Status Unsupported(const char* what) {
  return base::Error(
      base::Reason::kUnsupported,
      absl::StrCat("the model cannot be exported: the GGUF architecture deepseek2 has no ", what));
}

void AddYarn(GgufMetadata& metadata, const YarnScaling& yarn) {
  const std::string prefix = "deepseek2.rope.scaling.";
  metadata.AddString(prefix + "type", "yarn");
  metadata.AddF32(prefix + "factor", static_cast<float>(yarn.factor));
  metadata.AddU32(prefix + "original_context_length",
                  static_cast<uint32_t>(yarn.original_max_position_embeddings));
  metadata.AddF32(prefix + "yarn_log_multiplier", static_cast<float>(0.1 * yarn.mscale_all_dim));
  metadata.AddF32(prefix + "yarn_beta_fast", static_cast<float>(yarn.beta_fast));
  metadata.AddF32(prefix + "yarn_beta_slow", static_cast<float>(yarn.beta_slow));
}

void AddAttentionKeys(GgufMetadata& metadata, const Config& c, KvbForm kv_b) {
  const std::string prefix = "deepseek2.attention.";
  const uint32_t latent = c.kv_lora_rank + c.qk_rope_head_dim;
  const bool is_split = kv_b == KvbForm::kSplit;
  metadata.AddU32(prefix + "head_count", c.num_attention_heads);
  metadata.AddU32(prefix + "head_count_kv", is_split ? 1 : c.num_attention_heads);
  if (c.q_lora_rank > 0) metadata.AddU32(prefix + "q_lora_rank", c.q_lora_rank);
  metadata.AddU32(prefix + "kv_lora_rank", c.kv_lora_rank);
  metadata.AddU32(prefix + "key_length", is_split ? latent : c.qk_head_dim());
  metadata.AddU32(prefix + "value_length", is_split ? c.kv_lora_rank : c.v_head_dim);
  if (is_split) {
    metadata.AddU32(prefix + "key_length_mla", c.qk_head_dim());
    metadata.AddU32(prefix + "value_length_mla", c.v_head_dim);
  }
  metadata.AddF32(prefix + "layer_norm_rms_epsilon", c.rms_norm_eps);
}

GgufMetadata ArchitectureKeys(const Config& c, std::string_view name, GgmlType weights,
                              KvbForm kv_b) {
  GgufMetadata metadata;
  const std::string prefix = "deepseek2.";
  metadata.AddString("general.architecture", "deepseek2");
  metadata.AddString("general.name", name);
  metadata.AddU32("general.file_type", FileType(weights));
  metadata.AddU32("general.quantization_version", kQuantizationVersion);
  metadata.AddU32(prefix + "block_count", c.num_hidden_layers);
  metadata.AddU32(prefix + "context_length", static_cast<uint32_t>(c.max_position_embeddings));
  metadata.AddU32(prefix + "embedding_length", c.hidden_size);
  metadata.AddU32(prefix + "feed_forward_length", c.intermediate_size);
  metadata.AddU32(prefix + "leading_dense_block_count", c.first_k_dense_replace);
  metadata.AddU32(prefix + "vocab_size", c.vocab_size);
  AddAttentionKeys(metadata, c, kv_b);
  metadata.AddU32(prefix + "rope.dimension_count", c.qk_rope_head_dim);
  metadata.AddF32(prefix + "rope.freq_base", static_cast<float>(c.rope_theta));
  if (c.rope_scaling) AddYarn(metadata, *c.rope_scaling);
  metadata.AddU32(prefix + "expert_count", c.n_routed_experts);
  metadata.AddU32(prefix + "expert_used_count", c.num_experts_per_tok);
  metadata.AddU32(prefix + "expert_shared_count", c.n_shared_experts);
  metadata.AddU32(prefix + "expert_feed_forward_length", c.moe_intermediate_size);
  metadata.AddF32(prefix + "expert_weights_scale", c.routed_scaling_factor);
  metadata.AddBool(prefix + "expert_weights_norm", c.norm_topk_prob);
  metadata.AddU32(prefix + "expert_gating_func", kGatingSigmoid);
  if (c.n_group > 1) {
    metadata.AddU32(prefix + "expert_group_count", c.n_group);
    metadata.AddU32(prefix + "expert_group_used_count", c.topk_group);
  }
  return metadata;
}

// Looks sources up by their Hugging Face name and lists what becomes of them. The first error is
// kept, and what follows it does nothing.
class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const Config& config, GgmlType weights)
      : checkpoint_(checkpoint), weights_(weights) {
    for (TensorSpec& spec : TensorSpecs(config)) {
      const std::string name = spec.name;
      specs_.emplace(name, std::move(spec));
    }
  }

  /// A vector, or a matrix that stays F32.
  void AddF32(std::string name, const std::string& source) {
    Add({std::move(name), specs_.at(source).shape, GgmlType::kF32}, {source});
  }
  void AddWeight(std::string name, const std::string& source) {
    const std::vector<uint64_t>& shape = specs_.at(source).shape;
    Add({std::move(name), shape, TypeOf(shape.back())}, {source});
  }
  /// One tensor [sources, rows, columns].
  void AddStacked(std::string name, const std::vector<std::string>& sources) {
    std::vector<uint64_t> shape = specs_.at(sources.front()).shape;
    shape.insert(shape.begin(), sources.size());
    Add({std::move(name), shape, TypeOf(shape.back())}, sources);
  }
  /// attn_k_b [heads, r, dn] and attn_v_b [heads, dv, r] of kv_b [heads · (dn + dv), r].
  void AddSplitKvb(const std::string& block, const std::string& source, const Config& c) {
    const uint64_t heads = c.num_attention_heads;
    const uint64_t dn = c.qk_nope_head_dim;
    const uint64_t dv = c.v_head_dim;
    const uint64_t r = c.kv_lora_rank;
    GgufItem keys{{block + "attn_k_b.weight", {heads, r, dn}, TypeOf(dn)}, {}};
    GgufItem values{{block + "attn_v_b.weight", {heads, dv, r}, TypeOf(r)}, {}};
    const StoredMatrix matrix = Find(source);
    for (uint64_t head = 0; head < heads; ++head) {
      keys.pieces.push_back({matrix, head * (dn + dv), dn, true});
      values.pieces.push_back({matrix, head * (dn + dv) + dn, dv, false});
    }
    items_.push_back(std::move(keys));
    items_.push_back(std::move(values));
  }

  absl::StatusOr<std::vector<GgufItem>> Take() {
    if (!status_.ok()) return status_;
    return std::move(items_);
  }

 private:
  GgmlType TypeOf(uint64_t columns) const {
    const bool fits = weights_ != GgmlType::kQ8_0 || columns % kQ8Block == 0;
    return fits ? weights_ : GgmlType::kBf16;
  }

  StoredMatrix Find(const std::string& source) {
    absl::StatusOr<StoredMatrix> matrix = checkpoint_.Weight(specs_.at(source));
    if (matrix.ok()) return *std::move(matrix);
    status_.Update(matrix.status());
    return {};
  }

  void Add(GgufTensor tensor, const std::vector<std::string>& sources) {
    GgufItem item{std::move(tensor), {}};
    for (const std::string& source : sources) {
      const StoredMatrix matrix = Find(source);
      const uint64_t rows = std::max<uint64_t>(1, kPieceElements / item.tensor.columns());
      for (uint64_t row = 0; row < matrix.rows; row += rows) {
        item.pieces.push_back({matrix, row, std::min(rows, matrix.rows - row), false});
      }
    }
    items_.push_back(std::move(item));
  }

  const Checkpoint& checkpoint_;
  const GgmlType weights_;
  std::map<std::string, TensorSpec> specs_;
  std::vector<GgufItem> items_;
  absl::Status status_;
};

void AddAttention(Planner& plan, const std::string& block, const std::string& layer,
                  const Config& c, KvbForm kv_b) {
  const std::string attention = layer + "self_attn.";
  plan.AddF32(block + "attn_norm.weight", layer + "input_layernorm.weight");
  if (c.q_lora_rank == 0) {
    plan.AddWeight(block + "attn_q.weight", attention + "q_proj.weight");
  } else {
    plan.AddWeight(block + "attn_q_a.weight", attention + "q_a_proj.weight");
    plan.AddF32(block + "attn_q_a_norm.weight", attention + "q_a_layernorm.weight");
    plan.AddWeight(block + "attn_q_b.weight", attention + "q_b_proj.weight");
  }
  plan.AddWeight(block + "attn_kv_a_mqa.weight", attention + "kv_a_proj_with_mqa.weight");
  plan.AddF32(block + "attn_kv_a_norm.weight", attention + "kv_a_layernorm.weight");
  if (kv_b == KvbForm::kSplit) {
    plan.AddSplitKvb(block, attention + "kv_b_proj.weight", c);
  } else {
    plan.AddWeight(block + "attn_kv_b.weight", attention + "kv_b_proj.weight");
  }
  plan.AddWeight(block + "attn_output.weight", attention + "o_proj.weight");
}

void AddFeedForward(Planner& plan, const std::string& block, const std::string& layer,
                    const Config& c, bool is_moe) {
  const std::string mlp = layer + "mlp.";
  plan.AddF32(block + "ffn_norm.weight", layer + "post_attention_layernorm.weight");
  if (is_moe) {
    plan.AddF32(block + "ffn_gate_inp.weight", mlp + "gate.weight");
    plan.AddF32(block + "exp_probs_b.bias", mlp + "gate.e_score_correction_bias");
  }
  for (const std::string part : {"gate", "up", "down"}) {
    const std::string name = block + "ffn_" + part;
    const std::string source = part + "_proj.weight";
    if (!is_moe) {
      plan.AddWeight(name + ".weight", mlp + source);
      continue;
    }
    std::vector<std::string> experts;
    for (uint32_t e = 0; e < c.n_routed_experts; ++e) {
      experts.push_back(absl::StrCat(mlp, "experts.", e, ".", source));
    }
    plan.AddStacked(name + "_exps.weight", experts);
    if (c.n_shared_experts > 0) {
      plan.AddWeight(name + "_shexp.weight", absl::StrCat(mlp, "shared_experts.", source));
    }
  }
}

}  // namespace

absl::Status CheckGgufExport(const Config& c) {
  if (c.hc_mult > 1) return Unsupported("residual streams (mHC, hc_mult > 1)");
  if (c.indexer) return Unsupported("sparse attention (DSA, index_topk)");
  if (c.engram) return Unsupported("memory of n-grams (Engram, engram_layer_ids)");
  if (c.attention_bias) return Unsupported("attention biases (attention_bias)");
  if (c.rope_scaling) {
    const YarnScaling& yarn = *c.rope_scaling;
    // Anything else multiplies cos and sin, which yarn_log_multiplier cannot say.
    if (yarn.attention_factor || yarn.mscale != yarn.mscale_all_dim || yarn.mscale == 0) {
      return Unsupported("rope_scaling whose mscale differs from mscale_all_dim");
    }
    if (!yarn.truncate) return Unsupported("rope_scaling with truncate false");
  }
  return absl::OkStatus();
}

absl::StatusOr<GgufPlan> PlanGguf(const Checkpoint& checkpoint, const Config& config,
                                  std::string_view name, GgmlType weights, KvbForm kv_b) {
  EM_RETURN_IF_ERROR(CheckGgufExport(config));
  Planner plan(checkpoint, config, weights);
  plan.AddWeight("token_embd.weight", "model.embed_tokens.weight");
  for (uint32_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string block = absl::StrCat("blk.", i, ".");
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    AddAttention(plan, block, layer, config, kv_b);
    AddFeedForward(plan, block, layer, config, config.IsMoeLayer(i));
  }
  plan.AddF32("output_norm.weight", "model.norm.weight");
  if (!config.tie_word_embeddings) plan.AddWeight("output.weight", "lm_head.weight");
  EM_ASSIGN_OR_RETURN(std::vector<GgufItem> items, plan.Take());
  return GgufPlan{ArchitectureKeys(config, name, weights, kv_b), std::move(items)};
}

}  // namespace expertmesh::model
