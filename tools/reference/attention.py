"""Latent attention over selected positions (docs/model-family.md §4.4)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from .config import Config
from .norm import RmsNorm
from .records import Records
from .rope import Rotation

LATENT_EPS = 1e-6  # of q_a_layernorm, kv_a_layernorm and k_norm, whatever rms_norm_eps is


@dataclasses.dataclass
class LayerCache:
    """What one layer keeps of the tokens so far; None before the first."""

    latent: Tensor | None = None     # [B, S, r]  c_t
    key: Tensor | None = None        # [B, S, dr] k_t, rotated
    index_key: Tensor | None = None  # [B, S, dI] kI_t, rotated; full layers only


@dataclasses.dataclass
class Step:
    """What all layers of one forward pass share."""

    rotation: Rotation     # of the T new positions
    visible: Tensor        # bool [T, S]: s ≤ t
    start_position: int    # absolute position of column 0 of S
    attend_all: bool       # attend to all visible positions, whatever the indexer selects
    dense_experts: bool    # all experts as one product, masked
    records: Records


def _append(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None else torch.cat((old, new), 1)


def stable_top(scores: Tensor, count: int) -> Tensor:
    """Indices [..., count] of the largest scores; of equal ones the lowest index comes first."""
    if scores.isnan().any():
        raise ValueError("a score is not a number")
    order = torch.sort(scores + 0.0, dim=-1, descending=True, stable=True).indices
    return order[..., :count]


def select_positions(scores: Tensor, visible: Tensor, topk: int) -> Tensor:
    """S(t) as bool [B, T, S]: the min(topk, t + 1) visible positions with the largest score."""
    hidden = scores.detach().masked_fill(~visible, -torch.inf)
    chosen = torch.zeros_like(hidden, dtype=torch.bool)
    return chosen.scatter(-1, stable_top(hidden, topk), True) & visible


def list_positions(chosen: Tensor, topk: int, start_position: int) -> Tensor:
    """bool [B, T, S] as absolute positions int32 [B, T, topk], ascending, −1 behind the last."""
    size = chosen.shape[-1]
    column = torch.arange(size).expand(chosen.shape).masked_fill(~chosen, size)
    column = column.sort(-1).values[..., :topk]
    column = nn.functional.pad(column, (0, topk - column.shape[-1]), value=size)
    return torch.where(column < size, column + start_position, -1).to(torch.int32)


class Indexer(nn.Module):
    """Scores every visible position for every token; only the KL loss trains it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.dim = config.index_n_heads, config.index_head_dim
        self.topk = config.index_topk or 0
        self.interleaved = config.indexer_rope_interleave
        self.wq_b = nn.Linear(config.q_lora_rank, self.heads * self.dim, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.dim, bias=False)
        self.k_norm = nn.LayerNorm(self.dim, eps=LATENT_EPS)
        self.weights_proj = nn.Linear(config.hidden_size, self.heads, bias=False)

    def forward(self, x: Tensor, cq: Tensor, step: Step, cache: LayerCache) -> Tensor:
        """I(t, s) [B, T, S] for x [B, T, D], cq [B, T, q]; extends the cache."""
        query = step.rotation(self.wq_b(cq).unflatten(-1, (self.heads, self.dim)),
                              self.interleaved)
        key = step.rotation(self.k_norm(self.wk(x)), self.interleaved)
        cache.index_key = _append(cache.index_key, key)
        weight = self.weights_proj(x) * self.heads**-0.5                    # [B, T, nI]
        product = torch.einsum("bthd,bsd->bths", query, cache.index_key).relu()
        return torch.einsum("bth,bths->bts", weight, product) * self.dim**-0.5 + 0.0


class Attention(nn.Module):
    """MLA; keys and values of all heads come from one cached latent c_t."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.num_attention_heads
        self.nope, self.rope, self.value = (
            config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim)
        self.rank = config.kv_lora_rank
        hidden, q_rank = config.hidden_size, config.q_lora_rank
        self.q_a_proj = nn.Linear(hidden, q_rank, bias=False)
        self.q_a_layernorm = RmsNorm(q_rank, LATENT_EPS)
        self.q_b_proj = nn.Linear(q_rank, self.heads * (self.nope + self.rope), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.rank + self.rope, bias=False)
        self.kv_a_layernorm = RmsNorm(self.rank, LATENT_EPS)
        self.kv_b_proj = nn.Linear(self.rank, self.heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(self.heads * self.value, hidden, bias=False)
        self.scale = (self.nope + self.rope)**-0.5
        if config.rope_scaling is not None:
            self.scale *= config.rope_scaling.softmax_factor()
        self.indexer = Indexer(config) if config.has_indexer(layer) else None

    def forward(self, x: Tensor, step: Step, cache: LayerCache,
                selected: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(y [B, T, D], S(t)) for x [B, T, D]; `selected` is the S(t) of the full layer below.

        S(t) is bool [B, T, S], None where the model is dense.
        """
        cq = self.q_a_layernorm(self.q_a_proj(x))
        query = self.q_b_proj(cq).unflatten(-1, (self.heads, self.nope + self.rope))
        q_nope, q_rope = query.split((self.nope, self.rope), -1)
        latent, key = self.kv_a_proj_with_mqa(x).split((self.rank, self.rope), -1)
        cache.latent = _append(cache.latent, self.kv_a_layernorm(latent))
        cache.key = _append(cache.key, step.rotation(key))
        if self.indexer is not None:
            selected = self._select(x.detach(), cq.detach(), step, cache)
        attended = step.visible if selected is None or step.attend_all else selected[:, None]

        up = self.kv_b_proj.weight.unflatten(0, (self.heads, self.nope + self.value))
        key_up, value_up = up.split((self.nope, self.value), 1)     # [H, dn, r], [H, dv, r]
        absorbed = torch.einsum("bthn,hnr->bhtr", q_nope, key_up)
        score = torch.einsum("bhtr,bsr->bhts", absorbed, cache.latent)
        score = score + torch.einsum("bthd,bsd->bhts", step.rotation(q_rope), cache.key)
        p = (score * self.scale).masked_fill(~attended, -torch.inf).softmax(-1)
        if step.records.wants("attention"):
            step.records.put("attention", self.layer, p.detach().mean(1))
        mixed = torch.einsum("bhts,bsr->bthr", p, cache.latent)
        value = torch.einsum("bthr,hvr->bthv", mixed, value_up)
        return self.o_proj(value.flatten(-2)), selected

    def _select(self, x: Tensor, cq: Tensor, step: Step, cache: LayerCache) -> Tensor:
        scores = self.indexer(x, cq, step, cache)
        selected = select_positions(scores, step.visible, self.indexer.topk)
        if step.records.wants("index_scores"):
            step.records.put("index_scores", self.layer,
                             scores.masked_fill(~step.visible, -torch.inf))
        if step.records.wants("positions"):
            step.records.put("positions", self.layer, list_positions(
                selected, self.indexer.topk, step.start_position))
        return selected
