"""A forward pass in float64 written from docs/formats.md §1 and docs/model-family.md §4.4 alone.

It shares nothing with the transformers classes: where both agree, the golden is what the pages
say. It also keeps the scores of every selection, which the classes do not hand out.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import Config, Tensors, full_layers

_LATENT_EPS = 1e-6  # q_a_layernorm, kv_a_layernorm, the indexer's k_norm
_INF = math.inf


@dataclasses.dataclass
class Trace:
    """What a sequence left behind; arrays have a row per token."""

    logits: np.ndarray
    hidden: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    experts: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    positions: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    gate_scores: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    group_scores: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    index_scores: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    group_rule_matters: bool = False  # 0.0 and −inf for excluded groups choose different experts


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _best(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of each row, ascending; equal: the lower index."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return order[..., :count].sort(-1).values


def rope_numbers(config: Config) -> tuple[Tensor, float, float]:
    """(inverse frequencies [dr/2], factor on cos and sin, factor on the softmax scale)."""
    size = config["qk_rope_head_dim"]
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    base = float(rope.get("rope_theta", config.get("rope_theta", 1e4)))
    plain = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    if rope.get("rope_type", rope.get("type", "default")) == "default":
        return plain, 1.0, 1.0
    factor, original = rope["factor"], rope["original_max_position_embeddings"]

    def channel(turns: float) -> float:
        return size * math.log(original / (2 * math.pi * turns)) / (2 * math.log(base))

    def magnitude(s: float) -> float:
        return 0.1 * s * math.log(factor) + 1.0

    low, high = channel(rope.get("beta_fast", 32)), channel(rope.get("beta_slow", 1))
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    high = high + 0.001 if low == high else high
    ramp = ((torch.arange(size // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    inverse = plain / factor * ramp + plain * (1 - ramp)
    over, under = rope.get("mscale"), rope.get("mscale_all_dim")
    scaling = rope.get("attention_factor")
    if scaling is None:
        scaling = magnitude(over) / magnitude(under) if over and under else magnitude(1.0)
    return inverse, scaling, magnitude(under) ** 2 if under else 1.0


class Page:
    """One model: a config.json and its tensors, widened to float64."""

    def __init__(self, config: Config, tensors: Tensors, zero_masks_groups: bool = False) -> None:
        self._config = config
        self._weights = {name: value.double() for name, value in tensors.items()}
        self._full = full_layers(config)
        self._zero_masks_groups = zero_masks_groups
        self._inverse, self._rope_factor, self._scale_factor = rope_numbers(config)

    def forward(self, tokens: np.ndarray) -> Trace:
        """All tokens of one sequence at once, from position 0."""
        weights, eps = self._weights, self._config["rms_norm_eps"]
        trace = Trace(logits=np.empty(0))
        x = weights["model.embed_tokens.weight"][torch.from_numpy(tokens).long()]
        seen = torch.ones(len(tokens), len(tokens)).tril().bool()
        for layer in range(self._config["num_hidden_layers"]):
            own = f"model.layers.{layer}."
            u = _rms(x, weights[f"{own}input_layernorm.weight"], eps)
            y, seen = self._attention(u, layer, seen, trace)
            x = x + y
            u = _rms(x, weights[f"{own}post_attention_layernorm.weight"], eps)
            dense = layer < self._config["first_k_dense_replace"]
            x = x + (self._swiglu(f"{own}mlp.", u) if dense else self._moe(u, layer, trace))
            trace.hidden[layer] = x.numpy()
        tied = self._config["tie_word_embeddings"]
        head = weights["model.embed_tokens.weight" if tied else "lm_head.weight"]
        trace.logits = (_rms(x, weights["model.norm.weight"], eps) @ head.T).numpy()
        return trace

    def _linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self._weights[f"{name}.weight"].T
        bias = self._weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _swiglu(self, prefix: str, x: Tensor) -> Tensor:
        gate = _silu(self._linear(f"{prefix}gate_proj", x))
        return self._linear(f"{prefix}down_proj", gate * self._linear(f"{prefix}up_proj", x))

    def _rotate(self, x: Tensor, interleaved: bool = True) -> Tensor:
        """x: [T, …, dr], row t at position t."""
        angle = torch.arange(len(x), dtype=torch.float64)[:, None] * self._inverse
        angle = angle.reshape(len(x), *[1] * (x.dim() - 2), -1)
        cos, sin = angle.cos() * self._rope_factor, angle.sin() * self._rope_factor
        pairs = x.unflatten(-1, (-1, 2) if interleaved else (2, -1))
        a, b = pairs.unbind(-1 if interleaved else -2)
        return torch.stack((a * cos - b * sin, a * sin + b * cos),
                           -1 if interleaved else -2).flatten(-2)

    def _attention(self, x: Tensor, layer: int, seen: Tensor,
                   trace: Trace) -> tuple[Tensor, Tensor]:
        """(output [T, D], what each token saw [T, T]); `seen` is that of the layer below."""
        config, own = self._config, f"model.layers.{layer}.self_attn."
        nope, latent = config["qk_nope_head_dim"], config["kv_lora_rank"]
        heads = config["num_attention_heads"]
        query = x
        if config["q_lora_rank"] is None:
            q = self._linear(f"{own}q_proj", x)
        else:
            query = _rms(self._linear(f"{own}q_a_proj", x),
                         self._weights[f"{own}q_a_layernorm.weight"], _LATENT_EPS)
            q = self._linear(f"{own}q_b_proj", query)
        q = q.unflatten(-1, (heads, -1))
        a = self._linear(f"{own}kv_a_proj_with_mqa", x)
        c = _rms(a[:, :latent], self._weights[f"{own}kv_a_layernorm.weight"], _LATENT_EPS)
        kv = self._linear(f"{own}kv_b_proj", c).unflatten(-1, (heads, -1))
        if self._full[layer]:
            seen = self._select(x, query, layer, trace)
        scores = torch.einsum("thd,shd->hts", q[..., :nope], kv[..., :nope])
        scores += torch.einsum("thd,sd->hts", self._rotate(q[..., nope:]),
                               self._rotate(a[:, latent:]))
        scores *= q.shape[-1] ** -0.5 * self._scale_factor
        p = scores.masked_fill(~seen, -_INF).softmax(-1)
        out = torch.einsum("hts,shd->thd", p, kv[..., nope:]).flatten(-2)
        return self._linear(f"{own}o_proj", out), seen

    def _select(self, x: Tensor, query: Tensor, layer: int, trace: Trace) -> Tensor:
        """S(t) as [T, T]; the indexer of a full layer."""
        config, own = self._config, f"model.layers.{layer}.self_attn.indexer."
        heads, size, rope = (config["index_n_heads"], config["index_head_dim"],
                             config["qk_rope_head_dim"])
        interleaved = config["model_type"] == "glm_moe_dsa"
        q = self._linear(f"{own}wq_b", query).unflatten(-1, (heads, size))
        k = x @ self._weights[f"{own}wk.weight"].T
        k = torch.nn.functional.layer_norm(k, (size,), self._weights[f"{own}k_norm.weight"],
                                           self._weights[f"{own}k_norm.bias"], _LATENT_EPS)
        q = torch.cat((self._rotate(q[..., :rope], interleaved), q[..., rope:]), -1)
        k = torch.cat((self._rotate(k[..., :rope], interleaved), k[..., rope:]), -1)
        w = self._linear(f"{own}weights_proj", x) * heads ** -0.5
        scores = size ** -0.5 * torch.einsum(
            "th,hts->ts", w, torch.einsum("thd,sd->hts", q, k).relu())
        causal = torch.ones(len(x), len(x)).tril().bool()
        scores = (scores + 0.0).masked_fill(~causal, -_INF)
        count = min(config["index_topk"], len(x))
        seen = torch.zeros_like(causal).scatter(-1, _best(scores, count), True) & causal
        trace.index_scores[layer] = scores.numpy()
        trace.positions[layer] = positions_of(seen.numpy(), config["index_topk"])
        return seen

    def _moe(self, x: Tensor, layer: int, trace: Trace) -> Tensor:
        config, own = self._config, f"model.layers.{layer}.mlp."
        s = torch.sigmoid(self._linear(f"{own}gate", x))
        b = s + self._weights[f"{own}gate.e_score_correction_bias"]
        chosen = self._choose(b, layer, trace)
        w = s.gather(-1, chosen)
        if config["norm_topk_prob"]:
            w = w / (w.sum(-1, keepdim=True) + 1e-20)
        w = torch.zeros_like(s).scatter(-1, chosen, w * config["routed_scaling_factor"])
        y = self._swiglu(f"{own}shared_experts.", x)
        for expert in range(config["n_routed_experts"]):
            rows = w[:, expert].nonzero()[:, 0]
            part = self._swiglu(f"{own}experts.{expert}.", x[rows])
            y[rows] += w[rows, expert, None] * part
        return y

    def _choose(self, b: Tensor, layer: int, trace: Trace) -> Tensor:
        """The experts of each token, ascending, [T, k]."""
        config = self._config
        count, groups = config["num_experts_per_tok"], config["n_group"]
        scores = b
        if groups > 1:
            grouped = b.unflatten(-1, (groups, -1))
            group_scores = grouped.topk(2, -1).values.sum(-1)
            kept = torch.zeros_like(group_scores, dtype=torch.bool)
            kept = kept.scatter(-1, _best(group_scores, config["topk_group"]), True)
            kept = kept[..., None].expand_as(grouped).flatten(-2)
            zero, infinite = b.masked_fill(~kept, 0.0), b.masked_fill(~kept, -_INF)
            trace.group_scores[layer] = group_scores.numpy()
            if not torch.equal(_best(zero, count), _best(infinite, count)):
                trace.group_rule_matters = True
            scores = zero if self._zero_masks_groups else infinite
        chosen = _best(scores, count)
        trace.gate_scores[layer] = scores.numpy()
        trace.experts[layer] = chosen.numpy()
        return chosen


def positions_of(seen: np.ndarray, width: int) -> np.ndarray:
    """[T, width] positions where seen [T, S] is true, ascending, −1 behind the last."""
    out = np.full((len(seen), width), -1, dtype=np.int32)
    for row, line in zip(out, seen):
        chosen = np.flatnonzero(line)
        row[:chosen.size] = chosen
    return out


def smallest_margins(trace: Trace, config: Config, gap: Any) -> dict[str, float | None]:
    """{"experts", "positions"}: smallest gaps by `gap(scores, count)`; groups count as experts."""
    experts = [gap(scores, config["num_experts_per_tok"])
               for scores in trace.gate_scores.values()]
    experts += [gap(scores, config["topk_group"]) for scores in trace.group_scores.values()]
    positions = [gap(scores, config["index_topk"]) for scores in trace.index_scores.values()]
    return {kind: min(gaps) if gaps and min(gaps) < _INF else None
            for kind, gaps in (("experts", experts), ("positions", positions))}
