"""The presets of docs/model-family.md §6 as configurations."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import config as config_module
from .config import Config
from .hashing import HashData, choose_primes, choose_tables

_TINY = {
    "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4,
    "qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 40,
    "q_lora_rank": 96, "kv_lora_rank": 32, "intermediate_size": 160,
    "n_routed_experts": 32, "num_experts_per_tok": 16, "moe_intermediate_size": 32,
    "rms_norm_eps": 1e-3, "max_position_embeddings": 512,
    "index_n_heads": 4, "index_head_dim": 16, "index_topk": 8,
    "index_topk_freq": 2, "index_skip_topk_offset": 2,
    "engram_layer_ids": [1, 3], "engram_max_ngram": 3, "engram_n_heads": 2,
    "engram_head_dim": 32, "engram_vocab_size": 400, "engram_num_classes": 256,
}
_DEMO = _TINY | {
    "vocab_size": 4096, "hidden_size": 256, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
    "v_head_dim": 32, "kv_lora_rank": 64, "intermediate_size": 768, "n_routed_experts": 64,
    "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "index_head_dim": 32,
    "index_topk": 64, "engram_n_heads": 4, "engram_vocab_size": 2700, "engram_num_classes": 4096,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}
_BENCH = {
    "vocab_size": 32000, "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 16,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "q_lora_rank": 768, "kv_lora_rank": 512, "intermediate_size": 4096,
    "n_routed_experts": 64, "num_experts_per_tok": 16, "moe_intermediate_size": 512,
    "max_position_embeddings": 163840, "torch_dtype": "bfloat16",
}
_BENCH_FULL = _BENCH | {
    "rope_theta": 8e6, "max_position_embeddings": 1048576,
    "index_n_heads": 8, "index_head_dim": 128, "index_topk": 2048,
    "index_topk_freq": 4, "index_skip_topk_offset": 3,
    "engram_layer_ids": [1, 6], "engram_max_ngram": 4, "engram_n_heads": 8, "engram_head_dim": 32,
    "engram_vocab_size": 157000, "engram_num_classes": 32000,
}
_1T = _BENCH_FULL | {
    "vocab_size": 129280, "hidden_size": 7168, "num_hidden_layers": 58, "num_attention_heads": 64,
    "q_lora_rank": 1536, "first_k_dense_replace": 2, "intermediate_size": 18432,
    "n_routed_experts": 512, "moe_intermediate_size": 1280, "index_n_heads": 32,
    "engram_layer_ids": [1, 14], "engram_head_dim": 256, "engram_vocab_size": 16000000,
    "engram_num_classes": 99092,
}
_WITHOUT = {"hc_mult": 1, "index_topk": None, "engram_layer_ids": []}

# bench-1b and tiny-v3 are deepseek_v3 models; without streams, indexer and memory this family
# has the same tensors (tiny-v3's gate groups hold no parameters).
_PRESETS = {
    "tiny": _TINY, "demo": _DEMO, "bench-1b-full": _BENCH_FULL, "1t": _1T,
    "bench-1b": _BENCH | _WITHOUT, "tiny-v3": _TINY | _WITHOUT,
}
NAMES = tuple(_PRESETS)


def complete(raw: dict[str, Any]) -> Config:
    """A checked Config of config.json keys, engram_num_embeddings computed where needed."""
    layers = raw.get("engram_layer_ids", [])
    if layers:
        primes = choose_primes(raw["engram_vocab_size"], len(layers), raw["engram_max_ngram"],
                               raw["engram_n_heads"])
        raw = raw | {"engram_num_embeddings": [int(own.sum()) for own in primes]}
    return config_module.parse(raw)


def preset(name: str, **changes: Any) -> Config:
    """The preset `name` with some config.json keys changed.

    `demo` takes its classes from a tokenizer; here it has the identity unless
    `engram_num_classes` says otherwise (no parameter count depends on it).
    """
    return complete(_PRESETS[name] | changes)


def hash_data(config: Config, token_class: np.ndarray | None = None) -> HashData | None:
    """Hash numbers as a writer computes them; None for a model without memory.

    token_class: int32 [V]. Without it, ids share classes evenly: class = id · Vc div V, which is
    the identity for Vc = V and `id div 2` for `tiny`.
    """
    if not config.engram_layer_ids:
        return None
    classes, vocab_size = config.engram_num_classes, config.vocab_size
    if token_class is None:
        token_class = np.arange(vocab_size, dtype=np.int64) * classes // vocab_size
    tables = choose_tables(config.engram_layer_ids, config.engram_vocab_size,
                           config.engram_max_ngram, config.engram_n_heads, classes,
                           config.engram_seed)
    return HashData(token_class.astype(np.int32), tables)
