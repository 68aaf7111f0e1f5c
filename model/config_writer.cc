#include <charconv>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/config.h"

namespace expertmesh::model {
namespace {

// The shortest text that reads back as the same number.
template <class T>
std::string Number(T value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return {text, end};
}

std::string Quoted(const std::string& text) { return absl::StrCat("\"", text, "\""); }
std::string Flag(bool value) { return value ? "true" : "false"; }
std::string Optional(const std::optional<uint32_t>& id) { return id ? Number(*id) : "null"; }

std::string EosIds(const std::vector<uint32_t>& ids) {
  if (ids.empty()) return "null";
  return ids.size() == 1 ? Number(ids[0]) : absl::StrCat("[", absl::StrJoin(ids, ", "), "]");
}

std::string RopeScaling(const std::optional<YarnScaling>& yarn) {
  if (!yarn) return "null";
  const auto factor = yarn->attention_factor;
  return absl::StrCat(
      "{\"type\": \"yarn\", \"factor\": ", Number(yarn->factor),
      ", \"original_max_position_embeddings\": ", yarn->original_max_position_embeddings,
      ", \"beta_fast\": ", Number(yarn->beta_fast), ", \"beta_slow\": ", Number(yarn->beta_slow),
      ", \"mscale\": ", Number(yarn->mscale),
      ", \"mscale_all_dim\": ", Number(yarn->mscale_all_dim),
      ", \"attention_factor\": ", factor ? Number(*factor) : "null",
      ", \"truncate\": ", Flag(yarn->truncate), "}");
}

using Lines = std::map<std::string, std::string>;

std::string ClassName(const std::string& model_type) {
  if (model_type == "expertmesh") return "ExpertMeshForCausalLM";
  if (model_type == "glm_moe_dsa") return "GlmMoeDsaForCausalLM";
  return model_type == "deepseek_v32" ? "DeepseekV32ForCausalLM" : "DeepseekV3ForCausalLM";
}

template <class T>
std::string List(const std::vector<T>& items) {
  return absl::StrCat("[", absl::StrJoin(items, ", "), "]");
}

void AddIndexer(const IndexerConfig& indexer, Lines& lines) {
  std::vector<std::string> types;
  for (const bool full : indexer.full) types.push_back(full ? "\"full\"" : "\"shared\"");
  lines["index_topk"] = Number(indexer.index_topk);
  lines["index_n_heads"] = Number(indexer.index_n_heads);
  lines["index_head_dim"] = Number(indexer.index_head_dim);
  lines["indexer_rope_interleave"] = Flag(indexer.indexer_rope_interleave);
  lines["indexer_types"] = List(types);
}

void AddEngram(const EngramConfig& engram, Lines& lines) {
  lines["engram_layer_ids"] = List(engram.layer_ids);
  lines["engram_max_ngram"] = Number(engram.max_ngram);
  lines["engram_n_heads"] = Number(engram.n_heads);
  lines["engram_head_dim"] = Number(engram.head_dim);
  lines["engram_vocab_size"] = Number(engram.vocab_size);
  lines["engram_num_classes"] = Number(engram.num_classes);
  lines["engram_pad_token_id"] = Number(engram.pad_token_id);
  lines["engram_seed"] = Number(engram.seed);
  lines["engram_num_embeddings"] = List(engram.num_embeddings);
}

void AddFamilyKeys(const Config& config, Lines& lines) {
  if (config.indexer) AddIndexer(*config.indexer, lines);
  if (!config.IsOwnFamily()) return;
  if (!config.indexer) lines["index_topk"] = "null";
  lines["hc_mult"] = Number(config.hc_mult);
  lines["hc_sinkhorn_iters"] = Number(config.hc_sinkhorn_iters);
  lines["hc_eps"] = Number(config.hc_eps);
  if (config.engram) AddEngram(*config.engram, lines);
}

}  // namespace

std::string ConfigJson(const Config& config) {
  Lines lines = {
      {"architectures", absl::StrCat("[", Quoted(ClassName(config.model_type)), "]")},
      {"attention_bias", Flag(config.attention_bias)},
      {"bos_token_id", Optional(config.bos_token_id)},
      {"eos_token_id", EosIds(config.eos_token_ids)},
      {"first_k_dense_replace", Number(config.first_k_dense_replace)},
      {"hidden_act", "\"silu\""},
      {"hidden_size", Number(config.hidden_size)},
      {"intermediate_size", Number(config.intermediate_size)},
      {"kv_lora_rank", Number(config.kv_lora_rank)},
      {"max_position_embeddings", Number(config.max_position_embeddings)},
      {"model_type", Quoted(config.model_type)},
      {"moe_intermediate_size", Number(config.moe_intermediate_size)},
      {"n_group", Number(config.n_group)},
      {"n_routed_experts", Number(config.n_routed_experts)},
      {"n_shared_experts", Number(config.n_shared_experts)},
      {"norm_topk_prob", Flag(config.norm_topk_prob)},
      {"num_attention_heads", Number(config.num_attention_heads)},
      {"num_experts_per_tok", Number(config.num_experts_per_tok)},
      {"num_hidden_layers", Number(config.num_hidden_layers)},
      {"num_key_value_heads", Number(config.num_attention_heads)},
      {"pad_token_id", Optional(config.pad_token_id)},
      {"q_lora_rank", config.q_lora_rank == 0 ? "null" : Number(config.q_lora_rank)},
      {"qk_nope_head_dim", Number(config.qk_nope_head_dim)},
      {"qk_rope_head_dim", Number(config.qk_rope_head_dim)},
      {"rms_norm_eps", Number(config.rms_norm_eps)},
      {"rope_interleave", "true"},
      {"rope_scaling", RopeScaling(config.rope_scaling)},
      {"rope_theta", Number(config.rope_theta)},
      {"routed_scaling_factor", Number(config.routed_scaling_factor)},
      {"scoring_func", "\"sigmoid\""},
      {"tie_word_embeddings", Flag(config.tie_word_embeddings)},
      {"topk_group", Number(config.topk_group)},
      {"topk_method", "\"noaux_tc\""},
      {"torch_dtype", Quoted(config.torch_dtype)},
      {"v_head_dim", Number(config.v_head_dim)},
      {"vocab_size", Number(config.vocab_size)},
  };
  AddFamilyKeys(config, lines);
  return absl::StrCat("{\n",
                      absl::StrJoin(lines, ",\n",
                                    [](std::string* out, const auto& line) {
                                      absl::StrAppend(out, "  \"", line.first, "\": ", line.second);
                                    }),
                      "\n}\n");
}

}  // namespace expertmesh::model
