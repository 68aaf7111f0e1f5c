#include "tests/support/tiny_checkpoint.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint.h"
#include "model/kernels/bf16.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::test_support {
namespace {

// Mean and spread of a tensor's elements (docs/model-family.md §6).
struct Spread {
  float mean;
  float deviation;
};
Spread SpreadOf(const model::TensorSpec& spec) {
  if (spec.name.find("norm") != std::string::npos) return {1.0f, 0.1f};
  if (spec.name.find("e_score_correction_bias") != std::string::npos) return {0.0f, 0.1f};
  if (spec.name.find("embed_tokens") != std::string::npos) return {0.0f, 1.0f};
  return {0.0f, 1.0f / std::sqrt(static_cast<float>(spec.shape.back()))};
}

void AppendTensor(const model::TensorSpec& spec, bool bf16, std::mt19937_64& random,
                  std::string& data) {
  size_t count = 1;
  for (const uint64_t n : spec.shape) count *= n;
  const Spread spread = SpreadOf(spec);
  std::normal_distribution<float> normal(spread.mean, spread.deviation);
  for (size_t i = 0; i < count; ++i) {
    const float value = normal(random);
    char bytes[4];
    const uint16_t half = model::NarrowBf16(value);
    if (bf16) {
      std::memcpy(bytes, &half, sizeof(half));
    } else {
      std::memcpy(bytes, &value, sizeof(value));
    }
    data.append(bytes, bf16 ? 2 : 4);
  }
}

}  // namespace

model::Config AwkwardConfig() {
  model::Config c;
  c.model_type = "deepseek_v3";
  c.vocab_size = 101;
  c.hidden_size = 40;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 3;
  c.q_lora_rank = 36;
  c.kv_lora_rank = 28;
  c.qk_nope_head_dim = 12;
  c.qk_rope_head_dim = 6;
  c.v_head_dim = 20;
  c.rms_norm_eps = 1e-3f;
  c.max_position_embeddings = 4096;
  c.first_k_dense_replace = 1;
  c.intermediate_size = 72;
  c.n_routed_experts = 24;
  c.num_experts_per_tok = 7;
  c.moe_intermediate_size = 22;
  c.n_shared_experts = 1;
  c.n_group = 4;
  c.topk_group = 3;
  c.routed_scaling_factor = 2.5f;
  c.torch_dtype = "float32";
  return c;
}

model::Config TinyV3Config() {
  model::Config c;
  c.model_type = "deepseek_v3";
  c.vocab_size = 512;
  c.hidden_size = 64;
  c.num_hidden_layers = 5;
  c.num_attention_heads = 4;
  c.q_lora_rank = 96;
  c.kv_lora_rank = 32;
  c.qk_nope_head_dim = 24;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 40;
  c.rms_norm_eps = 1e-3f;
  c.max_position_embeddings = 512;
  c.first_k_dense_replace = 1;
  c.intermediate_size = 160;
  c.n_routed_experts = 32;
  c.num_experts_per_tok = 16;
  c.moe_intermediate_size = 32;
  c.n_shared_experts = 1;
  c.n_group = 4;
  c.topk_group = 3;
  c.routed_scaling_factor = 2.5f;
  c.torch_dtype = "float32";
  return c;
}

void WriteTinyModel(const std::string& directory, const model::Config& config, uint64_t seed) {
  std::filesystem::create_directories(directory);
  std::mt19937_64 random(seed);
  std::string header;
  std::string data;
  for (const model::TensorSpec& spec : model::TensorSpecs(config)) {
    const bool bf16 = config.torch_dtype == "bfloat16" && !spec.always_f32;
    const size_t begin = data.size();
    AppendTensor(spec, bf16, random, data);
    absl::StrAppend(&header, header.empty() ? "{" : ",", "\"", spec.name, "\":{\"dtype\":\"",
                    bf16 ? "BF16" : "F32", "\",\"shape\":[", absl::StrJoin(spec.shape, ","),
                    "],\"data_offsets\":[", begin, ",", data.size(), "]}");
  }
  header += "}";
  const uint64_t header_bytes = header.size();
  std::string file(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  file += header;
  file += data;
  WriteFile(directory + "/config.json", model::ConfigJson(config));
  WriteFile(directory + "/model.safetensors", file);
}

std::vector<uint32_t> RandomTokens(const model::Config& config, size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random() % config.vocab_size);
  return tokens;
}

}  // namespace expertmesh::test_support
