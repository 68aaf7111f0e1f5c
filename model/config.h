// config.json of a Hugging Face model directory. Keys keep their Hugging Face names
// (docs/model-family.md §2, docs/formats.md §1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config_overrides.h"

namespace expertmesh::model {

/// Stretched rope of type "yarn" (docs/formats.md §1.4). Keys as in rope_scaling.
struct YarnScaling {
  double factor = 1.0;
  uint64_t original_max_position_embeddings = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;         // whole channel numbers as limits of the ramp
  double mscale = 0.0;          // 0 = absent
  double mscale_all_dim = 0.0;  // 0 = absent
  std::optional<double> attention_factor = std::nullopt;
};

/// Sparse attention (docs/formats.md §2, docs/model-family.md §4.4). Keys as in the file.
struct IndexerConfig {
  uint32_t index_topk = 0;  // positions a token attends to
  uint32_t index_n_heads = 0;
  uint32_t index_head_dim = 0;
  bool indexer_rope_interleave = true;  // false: half-split pairs
  std::vector<bool> full;               // [layers]; false: the selection of the nearest full below
};

/// Memory of n-grams (docs/model-family.md §4.0 and §4.5). Keys as in the file.
struct EngramConfig {
  std::vector<uint32_t> layer_ids;  // ascending
  uint32_t max_ngram = 3;
  uint32_t n_heads = 8;  // per n-gram order
  uint32_t head_dim = 0;
  uint64_t vocab_size = 0;  // smallest number of rows of a head
  uint32_t num_classes = 0;
  uint32_t pad_token_id = 2;  // raw id whose class stands before the start
  uint64_t seed = 0;
  std::vector<uint64_t> num_embeddings;  // [layer_ids], rows of the table

  uint32_t columns() const { return (max_ngram - 1) * n_heads; }
};

/// A checked config: ParseConfig returns only configs this version can run.
struct Config {
  /// "deepseek_v3" ("kimi_k2" is read as that), "deepseek_v32", "glm_moe_dsa" or "expertmesh".
  std::string model_type;
  uint32_t vocab_size = 0;
  uint32_t hidden_size = 0;
  uint32_t num_hidden_layers = 0;
  uint32_t num_attention_heads = 0;
  uint32_t q_lora_rank = 0;  // 0 = null in the file: one q_proj, no query latent
  uint32_t kv_lora_rank = 0;
  uint32_t qk_nope_head_dim = 0;
  uint32_t qk_rope_head_dim = 0;
  uint32_t v_head_dim = 0;
  float rms_norm_eps = 1e-6f;  // all norms but q_a/kv_a (always 1e-6)
  double rope_theta = 10000.0;
  std::optional<YarnScaling> rope_scaling;
  uint64_t max_position_embeddings = 0;
  uint32_t first_k_dense_replace = 1;
  uint32_t intermediate_size = 0;
  uint32_t n_routed_experts = 0;
  uint32_t num_experts_per_tok = 0;
  uint32_t moe_intermediate_size = 0;
  uint32_t n_shared_experts = 0;
  uint32_t n_group = 1;
  uint32_t topk_group = 1;
  bool norm_topk_prob = true;
  float routed_scaling_factor = 1.0f;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // of q_a, kv_a and o_proj
  std::optional<uint32_t> bos_token_id;
  std::vector<uint32_t> eos_token_ids;
  std::optional<uint32_t> pad_token_id;
  std::string torch_dtype;  // "float32" or "bfloat16"; what `model init` writes

  std::optional<IndexerConfig> indexer;  // none: dense attention
  uint32_t hc_mult = 1;                  // residual streams; 1 = plain residual
  uint32_t hc_sinkhorn_iters = 20;
  float hc_eps = 1e-6f;
  std::optional<EngramConfig> engram;  // none: no memory

  bool IsOwnFamily() const { return model_type == "expertmesh"; }
  bool HasOwnIndexer(uint32_t layer) const { return indexer && indexer->full[layer]; }
  /// Place of the layer in engram->layer_ids, or nothing.
  std::optional<size_t> EngramPlace(uint32_t layer) const;
  bool IsMoeLayer(uint32_t layer) const { return layer >= first_k_dense_replace; }
  uint32_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
};

/// Whether this version runs models of that `model_type`.
bool RunsModelType(std::string_view model_type);

/// Parses and checks the text of config.json, the overridden keys replaced first. Unknown keys of
/// the text are ignored, those of overrides are not; a known key with an unsupported value is
/// kBadConfig naming key and value. Never aborts on any bytes.
absl::StatusOr<Config> ParseConfig(std::string_view json, const ConfigOverrides& overrides = {});

/// Reads DIR/config.json; errors name the file, and the overrides.
absl::StatusOr<Config> LoadConfig(const std::string& directory,
                                  const ConfigOverrides& overrides = {});

/// The inverse of ParseConfig: pretty JSON as `model init` writes it.
std::string ConfigJson(const Config& config);

}  // namespace expertmesh::model
