"""glm_moe_dsa: the indexer's rope in interleaved pairs, selections shared between layers."""

from __future__ import annotations

from ..build import Spec, cases
from ..checkpoint import Config
from .deepseek_v32 import SPECS as _V32

_BASE: Config = {key: value for key, value in _V32[0].config.items()
                 if key not in ("rope_theta", "rope_scaling")} | {
    "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "indexer_rope_interleave": True, "rms_norm_eps": 1e-5, "num_hidden_layers": 4,
    "index_topk_freq": 2, "index_skip_topk_offset": 2,
}
_TYPES = {key: value for key, value in _BASE.items()
          if key not in ("index_topk_freq", "index_skip_topk_offset")}

SPECS = (
    Spec("glm_moe_dsa_shared", "index_topk_freq 2: layers 0, 1 and 3 select, layer 2 reuses; a "
         "second, short sequence", _BASE, ((48, 64), (5, 10))),
    Spec("glm_moe_dsa_types", "indexer_types as a list with two shared layers in a row; no dense "
         "layer; rms_norm_eps 1e-3",
         _TYPES | {"num_hidden_layers": 5, "index_topk": 8, "rms_norm_eps": 1e-3,
                   "first_k_dense_replace": 0, "n_routed_experts": 12,
                   "indexer_types": ["full", "shared", "shared", "full", "shared"]},
         ((48, 64),)),
    Spec("glm_moe_dsa_narrow", "the smallest margin of a selection is between 2e-5 and 1e-4 σ",
         _BASE, ((48, 64),), narrow=True),
)
CASES = cases(SPECS)
