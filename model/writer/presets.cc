#include "model/writer/presets.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

Config CommonV3() {
  Config config;
  config.model_type = "deepseek_v3";
  config.first_k_dense_replace = 1;
  config.num_experts_per_tok = 16;
  config.n_shared_experts = 1;
  config.routed_scaling_factor = 2.5f;
  config.bos_token_id = 0;
  config.eos_token_ids = {1};
  config.pad_token_id = 2;
  return config;
}

Preset TinyV3() {
  Config config = CommonV3();
  config.vocab_size = 512;
  config.hidden_size = 64;
  config.num_hidden_layers = 5;
  config.num_attention_heads = 4;
  config.qk_nope_head_dim = 24;
  config.qk_rope_head_dim = 8;
  config.v_head_dim = 40;
  config.q_lora_rank = 96;
  config.kv_lora_rank = 32;
  config.intermediate_size = 160;
  config.n_routed_experts = 32;
  config.moe_intermediate_size = 32;
  config.n_group = 4;
  config.topk_group = 3;
  config.rms_norm_eps = 1e-3f;
  config.max_position_embeddings = 512;
  config.torch_dtype = "float32";
  return {config, WeightStyle::kSpread};
}

Preset Bench1b() {
  Config config = CommonV3();
  config.vocab_size = 32000;
  config.hidden_size = 1024;
  config.num_hidden_layers = 12;
  config.num_attention_heads = 16;
  config.qk_nope_head_dim = 128;
  config.qk_rope_head_dim = 64;
  config.v_head_dim = 128;
  config.q_lora_rank = 768;
  config.kv_lora_rank = 512;
  config.intermediate_size = 4096;
  config.n_routed_experts = 64;
  config.moe_intermediate_size = 512;
  config.rms_norm_eps = 1e-6f;
  config.max_position_embeddings = 163840;
  config.torch_dtype = "bfloat16";
  return {config, WeightStyle::kFlat};
}

}  // namespace

absl::StatusOr<Preset> FindPreset(std::string_view name) {
  if (name == "tiny-v3") return TinyV3();
  if (name == "bench-1b") return Bench1b();
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("unknown preset \"", std::string(name), "\", choose one of ",
                                  absl::StrJoin(PresetNames(), ", ")));
}

std::vector<std::string> PresetNames() { return {"tiny-v3", "bench-1b"}; }

}  // namespace expertmesh::model
