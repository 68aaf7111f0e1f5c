"""config.json of the family: parsing, checks and writing (docs/model-family.md §2)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from .rope import YarnScaling

_REQUIRED = object()
_INDEXER_TYPES = ("full", "shared")


class ConfigError(ValueError):
    """A key whose value is missing or not supported; the message names both."""

    def __init__(self, key: str, value: Any, wanted: str) -> None:
        super().__init__(f"config.json: {key} = {json.dumps(value)}: {wanted}")
        self.key, self.value = key, value


@dataclasses.dataclass(frozen=True)
class Config:
    """One checked configuration. Field names are the keys of config.json.

    `index_topk` None means dense attention; then `indexer_types` is empty.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    max_position_embeddings: int
    intermediate_size: int
    n_routed_experts: int
    moe_intermediate_size: int
    index_topk: int | None
    num_experts_per_tok: int = 16
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: YarnScaling | None = None
    first_k_dense_replace: int = 1
    n_shared_experts: int = 1
    routed_scaling_factor: float = 2.5
    index_n_heads: int = 0
    index_head_dim: int = 0
    indexer_rope_interleave: bool = True
    indexer_types: tuple[str, ...] = ()
    hc_mult: int = 4
    hc_sinkhorn_iters: int = 20
    hc_eps: float = 1e-6
    engram_layer_ids: tuple[int, ...] = ()
    engram_max_ngram: int = 3
    engram_n_heads: int = 8
    engram_head_dim: int = 0
    engram_vocab_size: int = 0
    engram_num_classes: int = 0
    engram_pad_token_id: int = 2
    engram_seed: int = 0
    engram_num_embeddings: tuple[int, ...] = ()
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    torch_dtype: str = "float32"
    initializer_range: float | None = None

    @property
    def engram_columns(self) -> int:
        """C: rows that one token reads in one engram layer."""
        return (self.engram_max_ngram - 1) * self.engram_n_heads

    def is_dense_ffn(self, layer: int) -> bool:
        """True if `layer` has one plain feed-forward block instead of experts."""
        return layer < self.first_k_dense_replace

    def has_indexer(self, layer: int) -> bool:
        """True if `layer` selects positions itself: a "full" layer of a sparse model."""
        return self.index_topk is not None and self.indexer_types[layer] == "full"


class _Reader:
    """Takes keys out of a parsed config.json; every refusal names key and value."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def value(self, key: str, default: Any = _REQUIRED) -> Any:
        if key not in self.raw and default is _REQUIRED:
            raise ConfigError(key, None, "is required")
        return self.raw.get(key, default)

    def integer(self, key: str, default: Any = _REQUIRED, at_least: int = 1) -> int:
        value = self.value(key, default)
        if type(value) is not int or value < at_least:
            raise ConfigError(key, value, f"an integer of at least {at_least} is needed")
        return value

    def real(self, key: str, default: Any = _REQUIRED) -> float:
        value = self.value(key, default)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise ConfigError(key, value, "a number above 0 is needed")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.value(key, default)
        if type(value) is not bool:
            raise ConfigError(key, value, "true or false is needed")
        return value

    def integers(self, key: str, default: Any = _REQUIRED) -> tuple[int, ...]:
        value = self.value(key, default)
        if not isinstance(value, (list, tuple)) or any(type(v) is not int or v < 0 for v in value):
            raise ConfigError(key, value, "a list of integers is needed")
        return tuple(value)

    def only(self, key: str, supported: Any) -> None:
        """An absent key is fine; any other value than `supported` is not."""
        value = self.value(key, supported)
        if type(value) is not type(supported) or value != supported:
            raise ConfigError(key, value, f"only {json.dumps(supported)} is supported")

    def token(self, key: str, vocab_size: int, default: int | None) -> int | None:
        value = self.value(key, default)
        if value is not None and (type(value) is not int or not 0 <= value < vocab_size):
            raise ConfigError(key, value, f"a token id below {vocab_size} is needed")
        return value


def _check_fixed(read: _Reader) -> None:
    read.only("model_type", "expertmesh")
    read.only("architectures", ["ExpertMeshForCausalLM"])
    read.only("rope_interleave", True)
    read.only("scoring_func", "sigmoid")
    read.only("topk_method", "noaux_tc")
    read.only("n_group", 1)
    read.only("topk_group", 1)
    read.only("norm_topk_prob", True)
    heads = read.integer("num_attention_heads")
    read.only("num_key_value_heads", heads)


def _rope_scaling(read: _Reader) -> YarnScaling | None:
    raw = read.value("rope_scaling", None)
    if raw is None:
        return None
    try:
        return YarnScaling.parse(raw)
    except ValueError as error:
        raise ConfigError("rope_scaling", raw, str(error)) from error


def _indexer_types(read: _Reader, layers: int) -> tuple[str, ...]:
    """The list, or the rule `full iff max(i − offset + 1, 0) mod freq == 0`."""
    if read.value("indexer_types", None) is None:
        freq = read.integer("index_topk_freq", 1)
        offset = read.integer("index_skip_topk_offset", 2, at_least=0)
        types = ["full" if max(i - offset + 1, 0) % freq == 0 else "shared" for i in range(layers)]
    else:
        types = read.value("indexer_types")
        if not isinstance(types, (list, tuple)) or len(types) != layers:
            raise ConfigError("indexer_types", types, f"a list of {layers} entries is needed")
    if types[0] != "full" or any(name not in _INDEXER_TYPES for name in types):
        raise ConfigError("indexer_types", list(types),
                          "entries are full or shared, and layer 0 is full")
    return tuple(types)


def _indexer(read: _Reader, layers: int, rope_dims: int) -> dict[str, Any]:
    if read.value("index_topk") is None:
        return {"index_topk": None}
    head_dim = read.integer("index_head_dim")
    if head_dim < rope_dims:
        raise ConfigError("index_head_dim", head_dim,
                          f"at least qk_rope_head_dim = {rope_dims} is needed")
    return {
        "index_topk": read.integer("index_topk"),
        "index_n_heads": read.integer("index_n_heads"),
        "index_head_dim": head_dim,
        "indexer_rope_interleave": read.boolean("indexer_rope_interleave", True),
        "indexer_types": _indexer_types(read, layers),
    }


def _engram(read: _Reader, layers: int, vocab_size: int) -> dict[str, Any]:
    ids = read.integers("engram_layer_ids", ())
    if not ids:
        return {}
    if any(a >= b for a, b in zip(ids, ids[1:])) or ids[-1] >= layers:
        raise ConfigError("engram_layer_ids", list(ids),
                          f"strictly ascending layers below {layers} are needed")
    rows = read.integers("engram_num_embeddings")
    if len(rows) != len(ids):
        raise ConfigError("engram_num_embeddings", list(rows),
                          f"one number per engram layer ({len(ids)}) is needed")
    pad = read.token("engram_pad_token_id", vocab_size, 2)
    if pad is None:
        raise ConfigError("engram_pad_token_id", None, f"a token id below {vocab_size} is needed")
    return {
        "engram_layer_ids": ids,
        "engram_max_ngram": read.integer("engram_max_ngram", 3, at_least=2),
        "engram_n_heads": read.integer("engram_n_heads", 8),
        "engram_head_dim": read.integer("engram_head_dim"),
        "engram_vocab_size": read.integer("engram_vocab_size"),
        "engram_num_classes": read.integer("engram_num_classes"),
        "engram_pad_token_id": pad,
        "engram_seed": read.integer("engram_seed", 0, at_least=0),
        "engram_num_embeddings": rows,
    }


def parse(raw: dict[str, Any]) -> Config:
    """The checked configuration of a parsed config.json; ConfigError names key and value."""
    read = _Reader(raw)
    _check_fixed(read)
    layers, vocab_size = read.integer("num_hidden_layers"), read.integer("vocab_size")
    rope_dims = read.integer("qk_rope_head_dim")
    if rope_dims % 2:
        raise ConfigError("qk_rope_head_dim", rope_dims, "an even number is needed")
    experts = read.integer("n_routed_experts")
    chosen = read.integer("num_experts_per_tok", 16)
    if chosen > experts:
        raise ConfigError("num_experts_per_tok", chosen, f"at most {experts} experts exist")
    dense = read.integer("first_k_dense_replace", 1, at_least=0)
    dtype = read.value("torch_dtype", "float32")
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError("torch_dtype", dtype, "float32 or bfloat16 is needed")
    same = {key: read.integer(key) for key in (
        "hidden_size", "num_attention_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
        "v_head_dim", "max_position_embeddings", "intermediate_size", "moe_intermediate_size")}
    same |= {key: read.token(key, vocab_size, None)
             for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return Config(
        vocab_size=vocab_size, num_hidden_layers=layers, qk_rope_head_dim=rope_dims,
        n_routed_experts=experts, num_experts_per_tok=chosen, first_k_dense_replace=dense,
        rms_norm_eps=read.real("rms_norm_eps", 1e-6),
        rope_theta=read.real("rope_theta", 10000.0),
        rope_scaling=_rope_scaling(read),
        n_shared_experts=read.integer("n_shared_experts", 1, at_least=0),
        routed_scaling_factor=read.real("routed_scaling_factor", 2.5),
        hc_mult=read.integer("hc_mult", 4),
        hc_sinkhorn_iters=read.integer("hc_sinkhorn_iters", 20, at_least=3),
        hc_eps=read.real("hc_eps", 1e-6),
        tie_word_embeddings=read.boolean("tie_word_embeddings", False),
        torch_dtype=dtype, initializer_range=read.value("initializer_range", None),
        **same, **_indexer(read, layers, rope_dims), **_engram(read, layers, vocab_size))


def to_json(config: Config) -> dict[str, Any]:
    """What config.json holds: every key that matters, indexer_types spelled out."""
    raw: dict[str, Any] = {
        "model_type": "expertmesh",
        "architectures": ["ExpertMeshForCausalLM"],
        "num_key_value_heads": config.num_attention_heads,
        "rope_interleave": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
    }
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name.startswith("engram_") and not config.engram_layer_ids:
            continue
        if field.name.startswith("index") and config.index_topk is None:
            continue
        if isinstance(value, YarnScaling):
            value = value.to_json()
        raw[field.name] = list(value) if isinstance(value, tuple) else value
    raw["index_topk"] = config.index_topk
    for key in ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range"):
        if raw[key] is None:
            del raw[key]
    return raw


def load(folder: Path) -> Config:
    """Reads and checks `folder`/config.json."""
    return parse(json.loads((folder / "config.json").read_text(encoding="utf-8")))
