#include "absl/strings/str_cat.h"
#include "model/checkpoint.h"
#include "model/config.h"

namespace expertmesh::model {
namespace {

class SpecList {
 public:
  void Add(const std::string& part, std::string name, std::vector<uint64_t> shape,
           bool always_f32 = false) {
    specs_.push_back({std::move(name), std::move(shape), always_f32, part});
  }

  // gate and up [width, hidden], down [hidden, width] (docs/formats.md §1.1).
  void AddSwiGlu(const std::string& part, const std::string& prefix, uint64_t hidden,
                 uint64_t width) {
    Add(part, prefix + "gate_proj.weight", {width, hidden});
    Add(part, prefix + "up_proj.weight", {width, hidden});
    Add(part, prefix + "down_proj.weight", {hidden, width});
  }

  std::vector<TensorSpec> Take() { return std::move(specs_); }

 private:
  std::vector<TensorSpec> specs_;
};

// docs/formats.md §1.2.
void AddAttention(SpecList& specs, const std::string& layer, const Config& c) {
  const std::string prefix = layer + "self_attn.";
  const uint64_t heads = c.num_attention_heads;
  if (c.q_lora_rank == 0) {
    specs.Add("mla", prefix + "q_proj.weight", {heads * c.qk_head_dim(), c.hidden_size});
  } else {
    specs.Add("mla", prefix + "q_a_proj.weight", {c.q_lora_rank, c.hidden_size});
    if (c.attention_bias) specs.Add("mla", prefix + "q_a_proj.bias", {c.q_lora_rank});
    specs.Add("mla", prefix + "q_a_layernorm.weight", {c.q_lora_rank});
    specs.Add("mla", prefix + "q_b_proj.weight", {heads * c.qk_head_dim(), c.q_lora_rank});
  }
  specs.Add("mla", prefix + "kv_a_proj_with_mqa.weight",
            {c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size});
  specs.Add("mla", prefix + "kv_a_layernorm.weight", {c.kv_lora_rank});
  specs.Add("mla", prefix + "kv_b_proj.weight",
            {heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank});
  specs.Add("mla", prefix + "o_proj.weight", {c.hidden_size, heads * c.v_head_dim});
  if (c.attention_bias) {
    specs.Add("mla", prefix + "kv_a_proj_with_mqa.bias", {c.kv_lora_rank + c.qk_rope_head_dim});
    specs.Add("mla", prefix + "o_proj.bias", {c.hidden_size});
  }
}

// docs/formats.md §2.1.
void AddIndexer(SpecList& specs, const std::string& layer, const Config& c) {
  const std::string prefix = layer + "self_attn.indexer.";
  const IndexerConfig& indexer = *c.indexer;
  specs.Add("indexer", prefix + "wq_b.weight",
            {uint64_t{indexer.index_n_heads} * indexer.index_head_dim, c.q_lora_rank});
  specs.Add("indexer", prefix + "wk.weight", {indexer.index_head_dim, c.hidden_size});
  specs.Add("indexer", prefix + "k_norm.weight", {indexer.index_head_dim});
  specs.Add("indexer", prefix + "k_norm.bias", {indexer.index_head_dim});
  specs.Add("indexer", prefix + "weights_proj.weight", {indexer.index_n_heads, c.hidden_size});
}

// docs/model-family.md §3: the mixes of one sublayer.
void AddMixes(SpecList& specs, const std::string& prefix, const Config& c) {
  const uint64_t n = c.hc_mult;
  specs.Add("mhc", prefix + "fn", {2 * n + n * n, n * c.hidden_size}, true);
  specs.Add("mhc", prefix + "base", {2 * n + n * n}, true);
  specs.Add("mhc", prefix + "scale", {3}, true);
}

// docs/model-family.md §3; the hash tables are in EngramHashSpecs.
void AddEngram(SpecList& specs, const std::string& layer, const Config& c, size_t place) {
  const std::string prefix = layer + "engram.";
  const EngramConfig& engram = *c.engram;
  const uint64_t n = c.hc_mult;
  specs.Add("engram_tables", prefix + "embed.weight",
            {engram.num_embeddings[place], engram.head_dim});
  specs.Add("engram_projections", prefix + "wkv.weight",
            {(n + 1) * c.hidden_size, uint64_t{engram.columns()} * engram.head_dim});
  specs.Add("engram_projections", prefix + "q_weight", {n, c.hidden_size});
  specs.Add("engram_projections", prefix + "k_weight", {n, c.hidden_size});
}

// docs/formats.md §1.6.
void AddMoe(SpecList& specs, const std::string& layer, const Config& c) {
  const std::string prefix = layer + "mlp.";
  specs.Add("gates", prefix + "gate.weight", {c.n_routed_experts, c.hidden_size});
  specs.Add("gates", prefix + "gate.e_score_correction_bias", {c.n_routed_experts}, true);
  for (uint32_t e = 0; e < c.n_routed_experts; ++e) {
    specs.AddSwiGlu("routed_experts", absl::StrCat(prefix, "experts.", e, "."), c.hidden_size,
                    c.moe_intermediate_size);
  }
  if (c.n_shared_experts > 0) {
    specs.AddSwiGlu("shared_experts", prefix + "shared_experts.", c.hidden_size,
                    uint64_t{c.n_shared_experts} * c.moe_intermediate_size);
  }
}

}  // namespace

std::vector<TensorSpec> TensorSpecs(const Config& c) {
  SpecList specs;
  specs.Add("embedding", "model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  for (uint32_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    specs.Add("norms", layer + "input_layernorm.weight", {c.hidden_size});
    AddAttention(specs, layer, c);
    if (c.HasOwnIndexer(i)) AddIndexer(specs, layer, c);
    if (c.hc_mult > 1) {
      AddMixes(specs, layer + "attn_hc.", c);
      AddMixes(specs, layer + "ffn_hc.", c);
    }
    if (const auto place = c.EngramPlace(i)) AddEngram(specs, layer, c, *place);
    specs.Add("norms", layer + "post_attention_layernorm.weight", {c.hidden_size});
    if (c.IsMoeLayer(i)) {
      AddMoe(specs, layer, c);
    } else {
      specs.AddSwiGlu("dense_ffn", layer + "mlp.", c.hidden_size, c.intermediate_size);
    }
  }
  specs.Add("norms", "model.norm.weight", {c.hidden_size});
  if (c.hc_mult > 1) {
    const uint64_t n = c.hc_mult;
    specs.Add("mhc", "model.hc_head.hc_fn", {n, n * c.hidden_size}, true);
    specs.Add("mhc", "model.hc_head.hc_base", {n}, true);
    specs.Add("mhc", "model.hc_head.hc_scale", {1}, true);
  }
  if (!c.tie_word_embeddings) {
    specs.Add("head", "lm_head.weight", {c.vocab_size, c.hidden_size});
  }
  return specs.Take();
}

std::vector<HashTensorSpec> EngramHashSpecs(const Config& c) {
  std::vector<HashTensorSpec> specs;
  if (!c.engram) return specs;
  specs.push_back({"model.engram.token_class", TensorType::kI32, c.vocab_size});
  for (const uint32_t layer : c.engram->layer_ids) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".engram.");
    specs.push_back({prefix + "primes", TensorType::kI64, c.engram->columns()});
    specs.push_back({prefix + "multipliers", TensorType::kI64, c.engram->max_ngram});
  }
  return specs;
}

}  // namespace expertmesh::model
