"""deepseek_v32: sparse attention, an indexer with half-split rope in every layer."""

from __future__ import annotations

from ..build import Spec, cases
from ..checkpoint import Config
from .deepseek_v3 import SPECS as _V3

_BASE: Config = _V3[-1].config | {
    "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32",
    "rms_norm_eps": 1e-6, "n_group": 1, "topk_group": 1,
    "index_topk": 12, "index_head_dim": 20,
    "index_n_heads": 12,  # with few heads relu leaves many exact ties: the class decides anyhow
}

SPECS = (
    Spec("deepseek_v32_plain", "a context nine times index_topk, rope on 8 of 20 index "
         "channels; a second sequence that never exceeds index_topk",
         _BASE, ((48, 64), (4, 8))),
    Spec("deepseek_v32_yarn", "the indexer and the heads share one YaRN table whose cos and sin "
         "are scaled; gate groups; rms_norm_eps 1e-3",
         _BASE | {"n_group": 4, "topk_group": 2, "rms_norm_eps": 1e-3, "index_topk": 8,
                  "qk_rope_head_dim": 16, "max_position_embeddings": 1280, "rope_scaling": {
                      "type": "yarn", "factor": 40.0, "original_max_position_embeddings": 32,
                      "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 0.7}},
         ((48, 64),)),
    Spec("deepseek_v32_narrow", "the smallest margin of a selection is between 2e-5 and 1e-4 σ",
         _BASE, ((48, 64),), narrow=True),
)
CASES = cases(SPECS)
