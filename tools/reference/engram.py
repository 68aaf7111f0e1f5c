"""Engram: rows of n-gram tables, gated into each stream (docs/model-family.md §4.0, §4.5)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .config import Config
from .hashing import HashTable, hash_rows

_GATE_FLOOR = 1e-6


def gate(d: Tensor) -> Tensor:
    """σ of the signed square root; a zero of either sign gives σ(+0.001)."""
    d = d + 0.0
    return torch.sigmoid(torch.copysign(d.abs().clamp(min=_GATE_FLOOR).sqrt(), d))


class Engram(nn.Module):
    """The memory of one layer."""

    def __init__(self, config: Config, table: HashTable) -> None:
        super().__init__()
        self.register_buffer("primes", torch.from_numpy(table.primes.copy()))
        self.register_buffer("multipliers", torch.from_numpy(table.multipliers.copy()))
        self.streams, hidden = config.hc_mult, config.hidden_size
        self.eps = config.rms_norm_eps
        self.embed = nn.Embedding(table.rows, config.engram_head_dim)
        self.wkv = nn.Linear(config.engram_columns * config.engram_head_dim,
                             (self.streams + 1) * hidden, bias=False)
        self.q_weight = nn.Parameter(torch.ones(self.streams, hidden))
        self.k_weight = nn.Parameter(torch.ones(self.streams, hidden))

    def table(self) -> HashTable:
        """The hash numbers of this layer."""
        return HashTable(self.primes.numpy(), self.multipliers.numpy())

    def forward(self, x: Tensor, classes: np.ndarray, history: np.ndarray) -> Tensor:
        """X + g·V for X [B, T, n, D], class ids [B, T] and the N−1 class ids before them."""
        rows = torch.from_numpy(hash_rows(classes, history, self.table()))
        return x + self.delta(x, self.embed(rows).flatten(-2))

    def delta(self, x: Tensor, e: Tensor) -> Tensor:
        """g_i · V [B, T, n, D] for the concatenated rows e [B, T, C·de]."""
        projected = self.wkv(e).unflatten(-1, (self.streams + 1, x.shape[-1]))
        keys, value = projected[..., :-1, :], projected[..., -1:, :]
        product = (x * self.q_weight * self.k_weight * keys).sum(-1)
        scale = x.shape[-1]**-0.5 * self._inverse_rms(x) * self._inverse_rms(keys)
        return gate(product * scale)[..., None] * value

    def _inverse_rms(self, v: Tensor) -> Tensor:
        return torch.rsqrt(v.square().mean(-1) + self.eps)
