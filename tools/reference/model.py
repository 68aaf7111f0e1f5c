"""The whole model: token ids to logits, with or without a cache (docs/model-family.md §4)."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .attention import Attention, LayerCache, Step
from .config import Config
from .engram import Engram
from .feed_forward import FeedForward, MixtureOfExperts
from .hashing import HashData
from .norm import RmsNorm
from .records import Records
from .residual import HeadCollapse, HyperConnection, PlainResidual
from .rope import Rotation


@dataclasses.dataclass
class Cache:
    """Lanes of equal length: B sequences whose first token stands at `start_position`."""

    layers: list[LayerCache]
    history: np.ndarray      # int64 [B, N−1]: class ids of the last tokens, oldest first
    start_position: int = 0
    tokens: int = 0          # how many are in the cache

    def copy(self) -> Cache:
        """A cache that can go another way; tensors are never changed in place."""
        return dataclasses.replace(self, layers=[dataclasses.replace(c) for c in self.layers])


@dataclasses.dataclass
class Output:
    """Of one forward pass over [B, T] tokens."""

    logits: Tensor           # [B, T, V]
    records: Records


def _residual(config: Config) -> HyperConnection | PlainResidual:
    if config.hc_mult == 1:
        return PlainResidual()
    return HyperConnection(config.hc_mult, config.hidden_size, config.hc_sinkhorn_iters,
                           config.hc_eps, config.rms_norm_eps)


class Layer(nn.Module):
    """Engram, then attention, then feed-forward, each onto the n streams."""

    def __init__(self, config: Config, layer: int, hashes: HashData | None) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.layer = layer
        self.engram = (Engram(config, hashes.tables[layer])
                       if layer in config.engram_layer_ids else None)
        self.attn_hc, self.ffn_hc = _residual(config), _residual(config)
        self.input_layernorm = RmsNorm(hidden, eps)
        self.post_attention_layernorm = RmsNorm(hidden, eps)
        self.self_attn = Attention(config, layer)
        self.mlp = (FeedForward(hidden, config.intermediate_size) if config.is_dense_ffn(layer)
                    else MixtureOfExperts(config, layer))

    def forward(self, x: Tensor, classes: np.ndarray, history: np.ndarray, step: Step,
                cache: LayerCache, selected: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(X, S(t)) after the layer, for X [B, T, n, D]."""
        if self.engram is not None:
            x = self.engram(x, classes, history)
        mixes = self.attn_hc.mixes(x)
        u = self.input_layernorm(self.attn_hc.collapse(x, mixes))
        y, selected = self.self_attn(u, step, cache, selected)
        x = self.attn_hc.spread(x, y, mixes)
        if mixes is not None:
            step.records.put("mixes", self.layer, mixes.comb)
        mixes = self.ffn_hc.mixes(x)
        u = self.post_attention_layernorm(self.ffn_hc.collapse(x, mixes))
        x = self.ffn_hc.spread(x, self.mlp(u, step), mixes)
        step.records.put("hidden", self.layer, x)
        return x, selected


class TokenClasses(nn.Module):
    """`model.engram`: which class each token id belongs to."""

    def __init__(self, hashes: HashData) -> None:
        super().__init__()
        self.register_buffer("token_class", torch.from_numpy(hashes.token_class.astype(np.int32)))


class Backbone(nn.Module):
    """`model.`: everything but the output head."""

    def __init__(self, config: Config, hashes: HashData | None) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, hidden)
        self.engram = TokenClasses(hashes) if config.engram_layer_ids else None
        self.layers = nn.ModuleList(
            Layer(config, layer, hashes) for layer in range(config.num_hidden_layers))
        self.hc_head = (HeadCollapse(config.hc_mult, hidden, config.hc_eps, config.rms_norm_eps)
                        if config.hc_mult > 1 else None)
        self.norm = RmsNorm(hidden, config.rms_norm_eps)


class ExpertMesh(nn.Module):
    """The model. Parameters are float32, or float64 after `.double()`.

    Names of parameters and buffers are those of the checkpoint, but for the routed experts,
    which are stacked here: `mlp.experts.gate_proj` [E, I, D] (checkpoint.py splits them).
    """

    def __init__(self, config: Config, hashes: HashData | None = None) -> None:
        super().__init__()
        if config.engram_layer_ids and hashes is None:
            raise ValueError("a model with memory needs its hash numbers")
        self.config = config
        self.model = Backbone(config, hashes)
        self.lm_head = (None if config.tie_word_embeddings else
                        nn.Linear(config.hidden_size, config.vocab_size, bias=False))

    def new_cache(self, lanes: int = 1, start_position: int = 0) -> Cache:
        """An empty cache for `lanes` sequences."""
        history = np.zeros((lanes, 0), dtype=np.int64)
        if self.model.engram is not None:
            pad = int(self.model.engram.token_class[self.config.engram_pad_token_id])
            history = np.full((lanes, self.config.engram_max_ngram - 1), pad, dtype=np.int64)
        return Cache([LayerCache() for _ in self.model.layers], history, start_position)

    def forward(self, tokens: Tensor, cache: Cache | None = None, *,
                records: tuple[str, ...] = (), dense_experts: bool = False,
                attend_all: bool = False, memory_tokens: Tensor | None = None) -> Output:
        """Logits of token ids [B, T] that follow what the cache holds; extends the cache.

        `dense_experts` computes all experts as one product (the same numbers but for rounding);
        `attend_all` lets attention see every position while the indexer still scores them;
        the memory is asked for `memory_tokens` [B, T] instead of the tokens, if given.
        """
        cache = self.new_cache(tokens.shape[0]) if cache is None else cache
        step = self._step(tokens.shape[1], cache, records, dense_experts, attend_all)
        heard = tokens if memory_tokens is None else memory_tokens
        classes, history = self._classes(heard), cache.history
        x = self.model.embed_tokens(tokens)[:, :, None, :].expand(
            -1, -1, self.config.hc_mult, -1)
        selected = None
        for layer, own in zip(self.model.layers, cache.layers):
            x, selected = layer(x, classes, history, step, own, selected)
        cache.tokens += tokens.shape[1]
        if history.shape[1]:
            cache.history = np.concatenate((history, classes), 1)[:, -history.shape[1]:]
        return Output(self.head(x), step.records)

    def head(self, x: Tensor) -> Tensor:
        """Logits [B, T, V] of the streams after the last layer."""
        u = x[..., 0, :] if self.model.hc_head is None else self.model.hc_head(x)
        weight = (self.model.embed_tokens if self.lm_head is None else self.lm_head).weight
        return linear(self.model.norm(u), weight)

    def _classes(self, tokens: Tensor) -> np.ndarray:
        if self.model.engram is None:
            return np.zeros(tuple(tokens.shape), dtype=np.int64)
        return self.model.engram.token_class[tokens].numpy().astype(np.int64)

    def _step(self, tokens: int, cache: Cache, records: tuple[str, ...], dense_experts: bool,
              attend_all: bool) -> Step:
        config, first = self.config, cache.start_position + cache.tokens
        if first + tokens > config.max_position_embeddings:
            raise ValueError(f"position {first + tokens - 1} is beyond max_position_embeddings "
                             f"{config.max_position_embeddings}")
        rotation = Rotation(np.arange(first, first + tokens), config.rope_theta,
                            config.qk_rope_head_dim, config.rope_scaling,
                            self.model.norm.weight.dtype)
        row = torch.arange(cache.tokens, cache.tokens + tokens)
        visible = torch.arange(cache.tokens + tokens) <= row[:, None]
        return Step(rotation, visible, cache.start_position, attend_all, dense_experts,
                    Records(records))
