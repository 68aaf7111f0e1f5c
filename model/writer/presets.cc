#include "model/writer/presets.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/writer/engram_tables.h"
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

// Sets what is common to all presets of our own family; the sizes are those of the config.
void MakeOwnFamily(Config& config, uint32_t index_every, uint32_t index_offset) {
  config.model_type = "expertmesh";
  config.n_group = 1;
  config.topk_group = 1;
  config.hc_mult = 4;
  for (uint32_t i = 0; i < config.num_hidden_layers; ++i) {
    const uint32_t after = i + 1 > index_offset ? i + 1 - index_offset : 0;
    config.indexer->full.push_back(after % index_every == 0);
  }
  config.engram->num_embeddings = EngramRowCounts(*config.engram);
}

Preset Tiny() {
  Config config = TinyV3().config;
  config.indexer =
      IndexerConfig{.index_topk = 8, .index_n_heads = 4, .index_head_dim = 16, .full = {}};
  config.engram = EngramConfig{.layer_ids = {1, 3},
                               .max_ngram = 3,
                               .n_heads = 2,
                               .head_dim = 32,
                               .vocab_size = 400,
                               .num_classes = 256,
                               .num_embeddings = {}};
  MakeOwnFamily(config, 2, 2);
  return {config, WeightStyle::kSpread};
}

Preset Demo() {
  Config config = CommonV3();
  config.vocab_size = 4096;
  config.hidden_size = 256;
  config.num_hidden_layers = 5;
  config.num_attention_heads = 4;
  config.qk_nope_head_dim = 32;
  config.qk_rope_head_dim = 16;
  config.v_head_dim = 32;
  config.q_lora_rank = 96;
  config.kv_lora_rank = 64;
  config.intermediate_size = 768;
  config.n_routed_experts = 64;
  config.moe_intermediate_size = 32;
  config.rms_norm_eps = 1e-6f;
  config.max_position_embeddings = 2048;
  config.tie_word_embeddings = true;
  config.torch_dtype = "bfloat16";
  config.indexer =
      IndexerConfig{.index_topk = 64, .index_n_heads = 4, .index_head_dim = 32, .full = {}};
  config.engram = EngramConfig{.layer_ids = {1, 3},
                               .max_ngram = 3,
                               .n_heads = 4,
                               .head_dim = 32,
                               .vocab_size = 2700,
                               .num_classes = 4096,
                               .num_embeddings = {}};
  MakeOwnFamily(config, 2, 2);
  return {config, WeightStyle::kSpread};
}

Preset Bench1bFull() {
  Config config = Bench1b().config;
  config.rope_theta = 8e6;
  config.max_position_embeddings = 1048576;
  config.indexer =
      IndexerConfig{.index_topk = 2048, .index_n_heads = 8, .index_head_dim = 128, .full = {}};
  config.engram = EngramConfig{.layer_ids = {1, 6},
                               .max_ngram = 4,
                               .n_heads = 8,
                               .head_dim = 32,
                               .vocab_size = 157000,
                               .num_classes = 32000,
                               .num_embeddings = {}};
  MakeOwnFamily(config, 4, 3);
  return {config, WeightStyle::kSpread, true};
}

Preset OneTrillion() {
  Config config = CommonV3();
  config.vocab_size = 129280;
  config.hidden_size = 7168;
  config.num_hidden_layers = 58;
  config.num_attention_heads = 64;
  config.qk_nope_head_dim = 128;
  config.qk_rope_head_dim = 64;
  config.v_head_dim = 128;
  config.q_lora_rank = 1536;
  config.kv_lora_rank = 512;
  config.first_k_dense_replace = 2;
  config.intermediate_size = 18432;
  config.n_routed_experts = 512;
  config.moe_intermediate_size = 1280;
  config.rms_norm_eps = 1e-6f;
  config.rope_theta = 8e6;
  config.max_position_embeddings = 1048576;
  config.torch_dtype = "bfloat16";
  config.indexer =
      IndexerConfig{.index_topk = 2048, .index_n_heads = 32, .index_head_dim = 128, .full = {}};
  config.engram = EngramConfig{.layer_ids = {1, 14},
                               .max_ngram = 4,
                               .n_heads = 8,
                               .head_dim = 256,
                               .vocab_size = 16000000,
                               .num_classes = 99092,
                               .num_embeddings = {}};
  MakeOwnFamily(config, 4, 3);
  return {config, WeightStyle::kSpread, true, true};
}

struct NamedPreset {
  const char* name;
  Preset (*make)();
};
constexpr NamedPreset kPresets[] = {{"tiny-v3", TinyV3},
                                    {"tiny", Tiny},
                                    {"demo", Demo},
                                    {"bench-1b", Bench1b},
                                    {"bench-1b-full", Bench1bFull},
                                    {"1t", OneTrillion}};

}  // namespace

absl::StatusOr<Preset> FindPreset(std::string_view name) {
  for (const NamedPreset& preset : kPresets) {
    if (name == preset.name) return preset.make();
  }
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("unknown preset \"", std::string(name), "\", choose one of ",
                                  absl::StrJoin(PresetNames(), ", ")));
}

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const NamedPreset& preset : kPresets) names.push_back(preset.name);
  return names;
}

std::vector<std::string> WrittenPresetNames() {
  std::vector<std::string> names;
  for (const NamedPreset& preset : kPresets) {
    if (!preset.make().on_paper) names.push_back(preset.name);
  }
  return names;
}

}  // namespace expertmesh::model
