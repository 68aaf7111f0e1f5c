#include "model/config.h"

#include <boost/json/object.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/checkpoint_files.h"
#include "model/config_family.h"
#include "model/config_json.h"
#include "model/config_keys.h"
#include "model/config_quantization.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr size_t kConfigBytesMax = 1 << 20;
constexpr size_t kEosIdsMax = 64;
constexpr uint64_t kMoeMatricesMax = uint64_t{1} << 20;  // layers · experts

void ReadModelType(KeyReader& keys, Config& config) {
  const std::string type = keys.TextOr("model_type", "");
  if (!RunsModelType(type)) {
    keys.Refuse("model_type",
                "this version runs \"deepseek_v3\", \"kimi_k2\", \"deepseek_v32\", \"glm_moe_dsa\" "
                "and \"expertmesh\"");
  }
  config.model_type = type == "kimi_k2" ? "deepseek_v3" : type;
}

void ReadSizes(KeyReader& keys, Config& config) {
  config.vocab_size = keys.Size("vocab_size", 1, 1 << 20);
  config.hidden_size = keys.Size("hidden_size", 1, 1 << 16);
  config.num_hidden_layers = keys.Size("num_hidden_layers", 1, 1024);
  config.num_attention_heads = keys.Size("num_attention_heads", 1, 1024);
  config.q_lora_rank = static_cast<uint32_t>(keys.IntegerOr("q_lora_rank", 0, 1, 1 << 16));
  config.kv_lora_rank = keys.Size("kv_lora_rank", 1, 1 << 14);
  config.qk_nope_head_dim = keys.Size("qk_nope_head_dim", 1, 1024);
  config.qk_rope_head_dim = keys.Size("qk_rope_head_dim", 2, 1024);
  if (config.qk_rope_head_dim % 2 != 0) keys.Refuse("qk_rope_head_dim", "must be even");
  config.v_head_dim = keys.Size("v_head_dim", 1, 1024);
  const uint32_t heads = config.num_attention_heads;
  if (keys.IntegerOr("num_key_value_heads", heads, 0, 1 << 16) != heads) {
    keys.Refuse("num_key_value_heads",
                absl::StrCat("must equal num_attention_heads (", heads, ")"));
  }
  config.intermediate_size = keys.Size("intermediate_size", 1, 1 << 20);
  config.max_position_embeddings = keys.Integer("max_position_embeddings", 1, uint64_t{1} << 26);
  const uint32_t layers = config.num_hidden_layers;
  config.first_k_dense_replace = config.IsOwnFamily()
                                     ? keys.SizeOr("first_k_dense_replace", 1, 0, layers)
                                     : keys.Size("first_k_dense_replace", 0, layers);
}

void ReadGateGroups(KeyReader& keys, Config& config) {
  if (config.IsOwnFamily()) {
    if (keys.IntegerOr("n_group", 1, 0, 1 << 14) != 1)
      keys.Refuse("n_group", "only 1 is supported");
    if (keys.IntegerOr("topk_group", 1, 0, 1 << 14) != 1) {
      keys.Refuse("topk_group", "only 1 is supported");
    }
    return;
  }
  const uint32_t experts = config.n_routed_experts;
  config.n_group = keys.Size("n_group", 1, 1 << 14);
  config.topk_group = keys.Size("topk_group", 1, 1 << 14);
  const uint32_t group_size = experts / config.n_group;
  if (experts % config.n_group != 0) {
    keys.Refuse("n_group", absl::StrCat("must divide n_routed_experts (", experts, ")"));
  }
  if (config.n_group > 1 && group_size < 2) {
    keys.Refuse("n_group", "groups must have at least 2 experts: their two best are added");
  }
  if (config.topk_group > config.n_group) {
    keys.Refuse("topk_group", absl::StrCat("must not exceed n_group (", config.n_group, ")"));
  }
  if (config.num_experts_per_tok > config.topk_group * uint64_t{group_size}) {
    keys.Refuse("num_experts_per_tok",
                absl::StrCat("only ", config.topk_group * uint64_t{group_size},
                             " experts are selectable (topk_group ", config.topk_group, " of ",
                             config.n_group, " groups)"));
  }
}

// Keys whose default differs between docs/model-family.md §2 and the published configs
// (first_k_dense_replace, num_experts_per_tok, n_group, topk_group) are guessed for our own family
// only.
void ReadExperts(KeyReader& keys, Config& config) {
  const uint32_t experts = config.n_routed_experts = keys.Size("n_routed_experts", 1, 1 << 14);
  if (uint64_t{experts} * config.num_hidden_layers > kMoeMatricesMax) {
    keys.Refuse("n_routed_experts",
                absl::StrCat("times num_hidden_layers (", config.num_hidden_layers,
                             ") must not exceed ", kMoeMatricesMax));
  }
  config.moe_intermediate_size = keys.Size("moe_intermediate_size", 1, 1 << 16);
  config.n_shared_experts = static_cast<uint32_t>(keys.IntegerOr("n_shared_experts", 1, 0, 64));
  const bool own = config.IsOwnFamily();
  config.num_experts_per_tok = own ? keys.SizeOr("num_experts_per_tok", 16, 1, 256)
                                   : keys.Size("num_experts_per_tok", 1, 256);
  if (config.num_experts_per_tok > experts) {
    keys.Refuse("num_experts_per_tok",
                absl::StrCat("must not exceed n_routed_experts (", experts, ")"));
  }
  ReadGateGroups(keys, config);
  keys.RequireText("scoring_func", "sigmoid");
  keys.RequireText("topk_method", "noaux_tc");
  if (keys.IntegerOr("moe_layer_freq", 1, 0, 1024) != 1) {
    keys.Refuse("moe_layer_freq", "only 1 is supported");
  }
  config.norm_topk_prob = keys.FlagOr("norm_topk_prob", true);
  if (own && !config.norm_topk_prob) keys.Refuse("norm_topk_prob", "only true is supported");
  config.routed_scaling_factor =
      static_cast<float>(keys.NumberOr("routed_scaling_factor", 2.5, 1e-6, 1e6));
}

// The keys of one rope object: `rope_scaling` of published configs ("type" or "rope_type", theta
// outside), or `rope_parameters` of transformers 5 (theta inside).
void ReadRopeObject(KeyReader& rope, Config& config) {
  config.rope_theta = rope.NumberOr("rope_theta", config.rope_theta, 1.0 + 1e-9, 1e12);
  const std::string_view type_key = rope.Find("rope_type") ? "rope_type" : "type";
  const std::string type = rope.TextOr(type_key, rope.Find("factor") ? "" : "default");
  if (type == "default") return;
  if (type != "yarn") return rope.Refuse(type_key, "only \"default\" and \"yarn\" are supported");
  YarnScaling yarn;
  yarn.factor = rope.NumberOr("factor", 0.0, 1.0, 1e6);  // absent: see SettleYarnFactor
  yarn.original_max_position_embeddings =
      rope.Integer("original_max_position_embeddings", 1, uint64_t{1} << 26);
  yarn.beta_fast = rope.NumberOr("beta_fast", 32.0, 1e-3, 1e6);
  yarn.beta_slow = rope.NumberOr("beta_slow", 1.0, 1e-3, 1e6);
  yarn.truncate = rope.FlagOr("truncate", true);
  yarn.mscale = rope.NumberOr("mscale", 0.0, 0.0, 1e3);
  yarn.mscale_all_dim = rope.NumberOr("mscale_all_dim", 0.0, 0.0, 1e3);
  if (rope.Find("attention_factor")) {
    yarn.attention_factor = rope.NumberOr("attention_factor", 1.0, 1e-6, 1e6);
  }
  config.rope_scaling = yarn;
}

void ReadRope(KeyReader& keys, Config& config) {
  config.rope_theta = keys.NumberOr("rope_theta", 10000.0, 1.0 + 1e-9, 1e12);
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    const json::value* rope = keys.Find(key);
    if (!rope) continue;
    if (!rope->is_object()) return keys.Refuse(key, "must be an object");
    KeyReader inner(rope->get_object());
    ReadRopeObject(inner, config);
    if (!inner.status().ok()) keys.Refuse(key, std::string(inner.status().message()));
  }
}

// A factor that is not given is the ratio of the two lengths, as in transformers.
void SettleYarnFactor(KeyReader& keys, Config& config) {
  if (!config.rope_scaling || config.rope_scaling->factor != 0.0) return;
  YarnScaling& yarn = *config.rope_scaling;
  yarn.factor = static_cast<double>(config.max_position_embeddings) /
                static_cast<double>(yarn.original_max_position_embeddings);
  if (yarn.factor < 1.0) {
    keys.Refuse("max_position_embeddings",
                "must not be below original_max_position_embeddings when there is no factor");
  }
}

void ReadArithmetic(KeyReader& keys, Config& config) {
  config.rms_norm_eps = static_cast<float>(keys.NumberOr("rms_norm_eps", 1e-6, 1e-12, 1.0));
  ReadRope(keys, config);
  keys.RequireFlag("rope_interleave", true);
  config.attention_bias = keys.FlagOr("attention_bias", false);
  keys.RequireText("hidden_act", "silu");
  if (const json::value* quantization = keys.Find("quantization_config")) {
    const absl::Status status = ParseQuantization(*quantization).status();
    if (!status.ok()) keys.Fail(std::string(status.message()));
  }
  config.tie_word_embeddings = keys.FlagOr("tie_word_embeddings", false);
  const char* dtype_key = keys.Find("torch_dtype") ? "torch_dtype" : "dtype";
  config.torch_dtype = keys.TextOr(dtype_key, "bfloat16");
  if (config.torch_dtype != "float32" && config.torch_dtype != "bfloat16" &&
      config.torch_dtype != "float16") {
    keys.Refuse(dtype_key, "must be \"float32\", \"bfloat16\" or \"float16\"");
  }
}

void ReadTokenIds(KeyReader& keys, Config& config) {
  const uint32_t last = config.vocab_size - 1;
  if (keys.Find("bos_token_id")) config.bos_token_id = keys.Size("bos_token_id", 0, last);
  if (keys.Find("pad_token_id")) config.pad_token_id = keys.Size("pad_token_id", 0, last);
  const json::value* eos = keys.Find("eos_token_id");
  if (!eos) return;
  if (!eos->is_array()) {
    config.eos_token_ids = {keys.Size("eos_token_id", 0, last)};
    return;
  }
  const std::string wanted =
      absl::StrCat("a list must hold 1 to ", kEosIdsMax, " integers from 0 to ", last);
  const json::array& list = eos->get_array();
  if (list.empty() || list.size() > kEosIdsMax) return keys.Refuse("eos_token_id", wanted);
  for (const json::value& id : list) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() > last) {
      return keys.Refuse("eos_token_id", wanted);
    }
    config.eos_token_ids.push_back(static_cast<uint32_t>(id.get_int64()));
  }
}

// The keys of the file with the overridden ones replaced.
absl::Status Override(json::object& keys, const ConfigOverrides& overrides) {
  for (const auto& [key, text] : overrides.values()) {
    EM_ASSIGN_OR_RETURN(json::value value, ParseJson(text, base::Reason::kBadConfig));
    keys[json::string_view(key.data(), key.size())] = std::move(value);
  }
  return absl::OkStatus();
}

// An override that nothing reads would measure nothing.
absl::Status CheckOverridesRead(const KeyReader& keys, const ConfigOverrides& overrides) {
  for (const auto& [key, text] : overrides.values()) {
    if (keys.WasAsked(key)) continue;
    return BadConfig(
        absl::StrCat("key \"", key.substr(0, 60), "\" is not read for a model like this"));
  }
  return absl::OkStatus();
}

}  // namespace

bool RunsModelType(std::string_view model_type) {
  return model_type == "deepseek_v3" || model_type == "kimi_k2" || model_type == "deepseek_v32" ||
         model_type == "glm_moe_dsa" || model_type == "expertmesh";
}

absl::StatusOr<Config> ParseConfig(std::string_view text, const ConfigOverrides& overrides) {
  if (text.size() > kConfigBytesMax) {
    return BadConfig(absl::StrCat("larger than ", kConfigBytesMax, " bytes"));
  }
  EM_ASSIGN_OR_RETURN(json::value root, ParseJson(text, base::Reason::kBadConfig));
  if (!root.is_object()) return BadConfig("not a JSON object");
  EM_RETURN_IF_ERROR(Override(root.get_object(), overrides));
  KeyReader keys(root.get_object());
  Config config;
  ReadModelType(keys, config);
  EM_RETURN_IF_ERROR(keys.status());  // another family's keys would only confuse
  ReadArithmetic(keys, config);
  ReadSizes(keys, config);
  SettleYarnFactor(keys, config);
  ReadExperts(keys, config);
  ReadTokenIds(keys, config);
  EM_RETURN_IF_ERROR(keys.status());  // what follows rests on sound sizes
  ReadFamilyKeys(keys, config);
  EM_RETURN_IF_ERROR(keys.status());
  EM_RETURN_IF_ERROR(CheckOverridesRead(keys, overrides));
  return config;
}

absl::StatusOr<Config> LoadConfig(const std::string& directory, const ConfigOverrides& overrides) {
  const std::string path = JoinPath(directory, "config.json");
  EM_ASSIGN_OR_RETURN(const std::string text,
                      ReadSmallFile(path, kConfigBytesMax, base::Reason::kBadConfig));
  absl::StatusOr<Config> config = ParseConfig(text, overrides);
  const std::string with = overrides.empty() ? "" : absl::StrCat(" with ", overrides.Flags());
  if (!config.ok()) return base::Annotate(config.status(), absl::StrCat(path, with, ": "));
  return config;
}

}  // namespace expertmesh::model
