#include "model/config.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "model/checkpoint.h"
#include "services/base/status.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using Keys = std::map<std::string, std::string>;

// Shapes as DeepSeek-V3 publishes them, but for the scaled rope and the quantisation.
const Keys kV3 = {{"model_type", R"("deepseek_v3")"},
                  {"vocab_size", "129280"},
                  {"hidden_size", "7168"},
                  {"num_hidden_layers", "61"},
                  {"num_attention_heads", "128"},
                  {"num_key_value_heads", "128"},
                  {"q_lora_rank", "1536"},
                  {"kv_lora_rank", "512"},
                  {"qk_nope_head_dim", "128"},
                  {"qk_rope_head_dim", "64"},
                  {"v_head_dim", "128"},
                  {"rms_norm_eps", "1e-06"},
                  {"rope_theta", "10000"},
                  {"rope_scaling", "null"},
                  {"intermediate_size", "18432"},
                  {"first_k_dense_replace", "3"},
                  {"moe_intermediate_size", "2048"},
                  {"n_routed_experts", "256"},
                  {"n_shared_experts", "1"},
                  {"num_experts_per_tok", "8"},
                  {"n_group", "8"},
                  {"topk_group", "4"},
                  {"norm_topk_prob", "true"},
                  {"routed_scaling_factor", "2.5"},
                  {"scoring_func", R"("sigmoid")"},
                  {"topk_method", R"("noaux_tc")"},
                  {"hidden_act", R"("silu")"},
                  {"attention_bias", "false"},
                  {"tie_word_embeddings", "false"},
                  {"torch_dtype", R"("bfloat16")"},
                  {"bos_token_id", "0"},
                  {"eos_token_id", "1"},
                  {"max_position_embeddings", "163840"}};

std::string Json(const Keys& keys) {
  std::string text = "{";
  for (const auto& [key, value] : keys) {
    text += (text.size() > 1 ? ",\"" : "\"") + key + "\":" + value;
  }
  return text + "}";
}

Keys With(const Keys& changes) {
  Keys keys = kV3;
  for (const auto& [key, value] : changes) keys[key] = value;
  return keys;
}

TEST(ParseConfig, ReadsEveryKey) {
  const absl::StatusOr<Config> config = ParseConfig(Json(kV3));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model_type, "deepseek_v3");
  EXPECT_EQ(config->vocab_size, 129280u);
  EXPECT_EQ(config->hidden_size, 7168u);
  EXPECT_EQ(config->num_hidden_layers, 61u);
  EXPECT_EQ(config->num_attention_heads, 128u);
  EXPECT_EQ(config->q_lora_rank, 1536u);
  EXPECT_EQ(config->kv_lora_rank, 512u);
  EXPECT_EQ(config->qk_head_dim(), 192u);
  EXPECT_EQ(config->v_head_dim, 128u);
  EXPECT_EQ(config->rms_norm_eps, 1e-6f);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_EQ(config->max_position_embeddings, 163840u);
  EXPECT_EQ(config->first_k_dense_replace, 3u);
  EXPECT_FALSE(config->IsMoeLayer(2));
  EXPECT_TRUE(config->IsMoeLayer(3));
  EXPECT_EQ(config->intermediate_size, 18432u);
  EXPECT_EQ(config->n_routed_experts, 256u);
  EXPECT_EQ(config->num_experts_per_tok, 8u);
  EXPECT_EQ(config->moe_intermediate_size, 2048u);
  EXPECT_EQ(config->n_shared_experts, 1u);
  EXPECT_EQ(config->n_group, 8u);
  EXPECT_EQ(config->topk_group, 4u);
  EXPECT_TRUE(config->norm_topk_prob);
  EXPECT_EQ(config->routed_scaling_factor, 2.5f);
  EXPECT_EQ(config->bos_token_id, 0u);
  EXPECT_EQ(config->eos_token_ids, std::vector<uint32_t>{1});
  EXPECT_EQ(config->pad_token_id, std::nullopt);
  EXPECT_EQ(config->torch_dtype, "bfloat16");
}

TEST(ParseConfig, AcceptsVariantsThatMeanTheSame) {
  const std::string v3 = ConfigJson(*ParseConfig(Json(kV3)));
  const Keys variants[] = {
      With({{"model_type", R"("kimi_k2")"}}),
      With({{"some_later_key", R"({"a": [1, 2, {"b": null}]})"}}),
      With({{"eos_token_id", "[1]"}}),
      With({{"rope_parameters", R"({"rope_type": "default", "rope_theta": 10000.0})"}}),
      With({{"torch_dtype", "null"}, {"dtype", R"("bfloat16")"}}),
  };
  for (const Keys& variant : variants) {
    const auto config = ParseConfig(Json(variant));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(ConfigJson(*config), v3);
  }
}

TEST(ParseConfig, ReadsYarnInBothSpellings) {
  const auto published = ParseConfig(Json(With({{"rope_scaling", R"({
      "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
      "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0})"}})));
  ASSERT_TRUE(published.ok()) << published.status();
  ASSERT_TRUE(published->rope_scaling.has_value());
  EXPECT_EQ(published->rope_scaling->factor, 40.0);
  EXPECT_EQ(published->rope_scaling->original_max_position_embeddings, 4096u);
  EXPECT_EQ(published->rope_scaling->mscale_all_dim, 1.0);
  EXPECT_FALSE(published->rope_scaling->attention_factor.has_value());
  // transformers 5: theta inside, and a factor that is not given is the ratio of the lengths.
  const auto inside = ParseConfig(Json(With({{"rope_parameters", R"({
      "rope_type": "yarn", "rope_theta": 10000.0, "original_max_position_embeddings": 4096,
      "mscale": 1.0, "mscale_all_dim": 1.0})"}})));
  ASSERT_TRUE(inside.ok()) << inside.status();
  EXPECT_EQ(ConfigJson(*inside), ConfigJson(*published)) << "163840 / 4096 is 40";
  const auto again = ParseConfig(ConfigJson(*published));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(ConfigJson(*again), ConfigJson(*published));
}

TEST(ParseConfig, NullQueryRankMeansOneProjection) {
  const auto config = ParseConfig(Json(With({{"q_lora_rank", "null"}})));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->q_lora_rank, 0u);
  EXPECT_EQ(ConfigJson(*ParseConfig(ConfigJson(*config))), ConfigJson(*config));
}

TEST(ParseConfig, EosMayBeAListAndIdsMayBeNull) {
  const auto config =
      ParseConfig(Json(With({{"eos_token_id", "[1, 7, 129279]"}, {"bos_token_id", "null"}})));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->eos_token_ids, (std::vector<uint32_t>{1, 7, 129279}));
  EXPECT_EQ(config->bos_token_id, std::nullopt);
}

TEST(ParseConfig, ConfigJsonIsItsInverse) {
  Config config = *ParseConfig(Json(With({{"rms_norm_eps", "0.001"},
                                          {"routed_scaling_factor", "2.827"},
                                          {"pad_token_id", "2"},
                                          {"eos_token_id", "[1, 5]"},
                                          {"tie_word_embeddings", "true"}})));
  const auto again = ParseConfig(ConfigJson(config));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(ConfigJson(*again), ConfigJson(config));
  EXPECT_EQ(again->rms_norm_eps, 1e-3f);
  EXPECT_EQ(again->routed_scaling_factor, 2.827f);
  EXPECT_EQ(again->eos_token_ids, (std::vector<uint32_t>{1, 5}));
  EXPECT_TRUE(again->tie_word_embeddings);
}

// Each change makes a config that cannot be run; the message names the key and shows the value.
struct BadCase {
  Keys changes;
  std::string key;
};

TEST(ParseConfig, RefusesWhatItCannotRunNamingKeyAndValue) {
  const BadCase cases[] = {
      {{{"model_type", R"("llama")"}}, "model_type"},
      {{{"model_type", "7"}}, "model_type"},
      {{{"scoring_func", R"("softmax")"}}, "scoring_func"},
      {{{"topk_method", R"("greedy")"}}, "topk_method"},
      {{{"rope_scaling", R"({"type":"yarn","factor":40})"}}, "rope_scaling"},
      {{{"rope_scaling", R"({"type":"linear","factor":40})"}}, "rope_scaling"},
      {{{"rope_scaling", R"({"factor":40,"original_max_position_embeddings":64})"}},
       "rope_scaling"},
      {{{"rope_scaling", R"({"type":"yarn","factor":0.5,"original_max_position_embeddings":64})"}},
       "rope_scaling"},
      {{{"rope_scaling", R"({"type":"yarn","original_max_position_embeddings":999999})"}},
       "max_position_embeddings"},
      {{{"rope_scaling", R"("yarn")"}}, "rope_scaling"},
      {{{"rope_theta", "1"}}, "rope_theta"},
      {{{"rope_parameters", R"({"rope_type":"yarn"})"}}, "rope_parameters"},
      {{{"rope_interleave", "false"}}, "rope_interleave"},
      {{{"q_lora_rank", "0"}}, "q_lora_rank"},
      {{{"attention_bias", "1"}}, "attention_bias"},
      {{{"hidden_act", R"("gelu")"}}, "hidden_act"},
      {{{"qk_rope_head_dim", "63"}}, "qk_rope_head_dim"},
      {{{"num_experts_per_tok", "257"}}, "num_experts_per_tok"},
      {{{"num_experts_per_tok", "0"}}, "num_experts_per_tok"},
      {{{"num_experts_per_tok", "129"}}, "num_experts_per_tok"},  // 4 groups of 32 are selectable
      {{{"n_group", "7"}}, "n_group"},
      {{{"n_group", "256"}}, "n_group"},
      {{{"topk_group", "9"}}, "topk_group"},
      {{{"moe_layer_freq", "2"}}, "moe_layer_freq"},
      {{{"num_key_value_heads", "8"}}, "num_key_value_heads"},
      {{{"quantization_config", R"({"quant_method":"gptq"})"}}, "quantization_config"},
      {{{"torch_dtype", R"("float64")"}}, "torch_dtype"},
      {{{"hidden_size", "0"}}, "hidden_size"},
      {{{"hidden_size", "-64"}}, "hidden_size"},
      {{{"hidden_size", "65537"}}, "hidden_size"},
      {{{"hidden_size", "18446744073709551615"}}, "hidden_size"},
      {{{"hidden_size", "64.0"}}, "hidden_size"},
      {{{"hidden_size", R"("64")"}}, "hidden_size"},
      {{{"hidden_size", "null"}}, "hidden_size"},
      {{{"num_hidden_layers", "100000"}}, "num_hidden_layers"},
      {{{"first_k_dense_replace", "62"}}, "first_k_dense_replace"},
      {{{"n_routed_experts", "16384"}, {"num_hidden_layers", "1000"}}, "n_routed_experts"},
      {{{"norm_topk_prob", "1"}}, "norm_topk_prob"},
      {{{"rms_norm_eps", "0"}}, "rms_norm_eps"},
      {{{"rms_norm_eps", R"("small")"}}, "rms_norm_eps"},
      {{{"routed_scaling_factor", "-1"}}, "routed_scaling_factor"},
      {{{"rope_theta", "1e400"}}, ""},  // not a double: the parser or the range refuses it
      {{{"bos_token_id", "129280"}}, "bos_token_id"},
      {{{"eos_token_id", "[]"}}, "eos_token_id"},
      {{{"eos_token_id", "[1, -2]"}}, "eos_token_id"},
      {{{"eos_token_id", R"("</s>")"}}, "eos_token_id"},
  };
  for (const BadCase& bad : cases) {
    const auto config = ParseConfig(Json(With(bad.changes)));
    ASSERT_FALSE(config.ok()) << Json(bad.changes);
    EXPECT_EQ(base::ReasonOf(config.status()), base::Reason::kBadConfig);
    const std::string message(config.status().message());
    EXPECT_NE(message.find(bad.key), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(ParseConfig, ShowsTheOffendingValueInOneShortLine) {
  const auto config = ParseConfig(Json(With({{"hidden_act", R"("gelu\nfast")"}})));
  EXPECT_NE(config.status().message().find(R"("gelu\nfast")"), std::string::npos)
      << config.status();
  const std::string huge = "\"" + std::string(100000, 'x') + "\"";
  EXPECT_LT(ParseConfig(Json(With({{"hidden_act", huge}}))).status().message().size(), 300u);
}

TEST(ParseConfig, RequiresEveryKeyWithoutASafeDefault) {
  for (const char* key :
       {"model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "intermediate_size",
        "max_position_embeddings", "n_routed_experts", "num_experts_per_tok",
        "moe_intermediate_size", "first_k_dense_replace", "n_group", "topk_group"}) {
    Keys keys = kV3;
    keys.erase(key);
    const auto config = ParseConfig(Json(keys));
    EXPECT_EQ(base::ReasonOf(config.status()), base::Reason::kBadConfig) << key;
    EXPECT_NE(config.status().message().find(key), std::string::npos) << config.status();
  }
}

TEST(ParseConfig, RefusesTextThatIsNotOneObject) {
  const std::string deep = std::string(200, '[') + std::string(200, ']');
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), Json(kV3) + "x",
        Json(kV3).substr(0, 100), Json(With({{"deep", deep}})), Json(With({{"text", "\"\xff\""}})),
        Json(With({{"long", std::string(2 << 20, '1')}}))}) {
    EXPECT_EQ(base::ReasonOf(ParseConfig(text).status()), base::Reason::kBadConfig);
  }
}

TEST(LoadConfig, NamesTheFile) {
  const test_support::TempDir dir;
  const std::string path = dir / "config.json";
  EXPECT_NE(LoadConfig(dir.path()).status().message().find(path), std::string::npos);
  test_support::WriteFile(path, "{");
  const absl::Status broken = LoadConfig(dir.path()).status();
  EXPECT_EQ(base::ReasonOf(broken), base::Reason::kBadConfig);
  EXPECT_NE(broken.message().find(path), std::string::npos);
  test_support::WriteFile(path, Json(kV3));
  EXPECT_TRUE(LoadConfig(dir.path()).ok());
}

TEST(TensorSpecs, NamesAndShapesOfAMoeLayer) {
  const Config config = *ParseConfig(Json(kV3));
  std::map<std::string, TensorSpec> specs;
  for (TensorSpec& spec : TensorSpecs(config)) specs[spec.name] = spec;
  const auto shape = [&](const std::string& name) { return specs.at(name).shape; };
  using Shape = std::vector<uint64_t>;
  EXPECT_EQ(shape("model.embed_tokens.weight"), (Shape{129280, 7168}));
  EXPECT_EQ(shape("lm_head.weight"), (Shape{129280, 7168}));
  EXPECT_EQ(shape("model.layers.60.self_attn.q_b_proj.weight"), (Shape{24576, 1536}));
  EXPECT_EQ(shape("model.layers.60.self_attn.kv_a_proj_with_mqa.weight"), (Shape{576, 7168}));
  EXPECT_EQ(shape("model.layers.60.self_attn.kv_b_proj.weight"), (Shape{32768, 512}));
  EXPECT_EQ(shape("model.layers.60.self_attn.o_proj.weight"), (Shape{7168, 16384}));
  EXPECT_EQ(shape("model.layers.2.mlp.down_proj.weight"), (Shape{7168, 18432}));
  EXPECT_EQ(shape("model.layers.3.mlp.experts.255.up_proj.weight"), (Shape{2048, 7168}));
  EXPECT_EQ(shape("model.layers.3.mlp.shared_experts.down_proj.weight"), (Shape{7168, 2048}));
  EXPECT_TRUE(specs.at("model.layers.3.mlp.gate.e_score_correction_bias").always_f32);
  EXPECT_FALSE(specs.contains("model.layers.2.mlp.gate.weight"));
  Config tied = config;
  tied.tie_word_embeddings = true;
  EXPECT_EQ(TensorSpecs(tied).size(), specs.size() - 1);
}

}  // namespace
}  // namespace expertmesh::model
