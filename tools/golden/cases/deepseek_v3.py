"""deepseek_v3: gate with groups, YaRN in three forms, with and without a query latent."""

from __future__ import annotations

import torch

from ..build import Spec, cases
from ..checkpoint import Config

_BASE: Config = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
    "vocab_size": 128, "hidden_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 3, "num_key_value_heads": 3, "q_lora_rank": 40, "kv_lora_rank": 24,
    "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 20,
    "intermediate_size": 64, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "n_routed_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 16,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None,
    "max_position_embeddings": 256, "attention_bias": False, "attention_dropout": 0.0,
    "tie_word_embeddings": False, "num_nextn_predict_layers": 0, "initializer_range": 0.02,
    "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16", "use_cache": True,
}
_GROUPS = {"n_group": 4, "topk_group": 2}
_LONG_ROPE = {"qk_rope_head_dim": 16, "max_position_embeddings": 1280}


def _yarn(**keys: object) -> Config:
    return {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 32,
            "beta_fast": 32, "beta_slow": 1} | keys


SPECS = (
    Spec("deepseek_v3_groups", "four gate groups of which two are kept; rms_norm_eps 1e-3, so "
         "that the 1e-6 of the latent norms shows; a second, short sequence; F32",
         _BASE | _GROUPS | {"rms_norm_eps": 1e-3, "torch_dtype": "float32",
                            "num_experts_per_tok": 5}, ((40, 64), (3, 13)), torch.float32),
    Spec("deepseek_v3_direct_query", "q_lora_rank null: one q_proj; two dense layers; three of "
         "four groups; value heads narrower than keys",
         _BASE | {"q_lora_rank": None, "first_k_dense_replace": 2, "num_hidden_layers": 4,
                  "n_group": 4, "topk_group": 3, "v_head_dim": 10}),
    Spec("deepseek_v3_yarn", "YaRN as in V3, mscale and mscale_all_dim 1: m² in the softmax "
         "scale alone; positions three times the original length",
         _BASE | _LONG_ROPE | {"rope_scaling": _yarn(mscale=1.0, mscale_all_dim=1.0)},
         ((48, 64),)),
    Spec("deepseek_v3_yarn_mscale", "YaRN with mscale ≠ mscale_all_dim: cos and sin are scaled "
         "and the softmax scale carries m²; both ends of the ramp inside",
         _BASE | _LONG_ROPE | {"rope_theta": 100.0, "rope_scaling": _yarn(
             factor=8.0, beta_fast=4, mscale=1.0, mscale_all_dim=0.6)}, ((48, 64),)),
    Spec("deepseek_v3_yarn_no_all_dim", "YaRN with mscale_all_dim 0: no m², cos and sin scaled "
         "by 0.1·ln(factor)+1; keys in the form of rope_parameters, truncate false",
         {key: value for key, value in (_BASE | _LONG_ROPE).items()
          if key not in ("rope_theta", "rope_scaling")} | {"rope_parameters": {
              "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "truncate": False,
              "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1,
              "mscale": 1.0, "mscale_all_dim": 0}}, ((48, 64),)),
    Spec("deepseek_v3_sharded", "three shards with an index; F32, BF16 and F16 mixed; tensors "
         "shuffled, headers in another order than the bytes and padded with spaces",
         _BASE | {"torch_dtype": "float32"}, sharded=True, dtype=torch.float32),
    Spec("deepseek_v3_tied", "no dense layer, norm_topk_prob false, two shared experts, tied "
         "embedding, scaling 1",
         _BASE | {"first_k_dense_replace": 0, "norm_topk_prob": False, "n_shared_experts": 2,
                  "tie_word_embeddings": True, "routed_scaling_factor": 1.0},
         embedding_scale=0.2),
    Spec("deepseek_v3_attention_bias", "attention_bias true: biases of q_a_proj, "
         "kv_a_proj_with_mqa and o_proj; no published model sets it",
         _BASE | {"attention_bias": True}),
    Spec("deepseek_v3_group_mask_infinity", "kept experts with a negative score: excluded groups "
         "are masked with −inf, as this release does, and 0.0 would choose others",
         _BASE | _GROUPS | {"num_experts_per_tok": 6}, gate_bias=-0.6,
         group_rule_matters=True),
    Spec("deepseek_v3_group_mask_zero", "the same with 0.0 for excluded groups, as releases "
         "before did: an excluded expert beats kept ones of negative score",
         _BASE | _GROUPS | {"num_experts_per_tok": 6}, gate_bias=-0.6,
         group_rule_matters=True, zero_masks_groups=True),
    Spec("deepseek_v3_narrow", "the smallest margin of the gate is between 2e-5 and 1e-4 σ; "
         "rms_norm_eps 1e-2", _BASE | _GROUPS | {"rms_norm_eps": 1e-2}, narrow=True),
)
CASES = cases(SPECS)
