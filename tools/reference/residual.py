"""Residual streams: manifold-constrained hyper-connections (docs/model-family.md §4.2, §4.7)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Mixes(NamedTuple):
    """Coefficients of one sublayer, per token."""

    pre: Tensor   # [B, T, n]
    post: Tensor  # [B, T, n]
    comb: Tensor  # [B, T, n, n], P: row = source, column = destination


def sinkhorn(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """P of [..., n, n] logits: columns are normalised last."""
    p = logits.softmax(-1) + eps
    p = p / (p.sum(-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        p = p / (p.sum(-1, keepdim=True) + eps)
        p = p / (p.sum(-2, keepdim=True) + eps)
    return p


def normalised_projection(fn: Tensor, streams: Tensor, rms_eps: float) -> Tensor:
    """(fn · vec(X)) · rinv for X [B, T, n, D]; vec is stream-major."""
    flat = streams.flatten(-2)
    rinv = torch.rsqrt(flat.square().mean(-1, keepdim=True) + rms_eps)
    return nn.functional.linear(flat, fn) * rinv


class HyperConnection(nn.Module):
    """`attn_hc` or `ffn_hc`: collapses n streams for a sublayer and spreads its output."""

    def __init__(self, streams: int, hidden: int, iterations: int, hc_eps: float,
                 rms_eps: float) -> None:
        super().__init__()
        outputs = 2 * streams + streams * streams
        self.fn = nn.Parameter(torch.zeros(outputs, streams * hidden))
        self.base = nn.Parameter(torch.zeros(outputs))
        self.scale = nn.Parameter(torch.ones(3))
        self.streams, self.iterations = streams, iterations
        self.hc_eps, self.rms_eps = hc_eps, rms_eps

    def mixes(self, x: Tensor) -> Mixes:
        """pre, post and P of X [B, T, n, D]."""
        n = self.streams
        m = normalised_projection(self.fn, x, self.rms_eps)
        pre, post, comb = m.split((n, n, n * n), -1)
        base_pre, base_post, base_comb = self.base.split((n, n, n * n))
        logits = (comb * self.scale[2] + base_comb).unflatten(-1, (n, n))
        return Mixes(
            pre=torch.sigmoid(pre * self.scale[0] + base_pre) + self.hc_eps,
            post=2 * torch.sigmoid(post * self.scale[1] + base_post),
            comb=sinkhorn(logits, self.iterations, self.hc_eps))

    @staticmethod
    def collapse(x: Tensor, mixes: Mixes) -> Tensor:
        """u = Σ_i pre_i X_i: [B, T, D]."""
        return torch.einsum("bti,btid->btd", mixes.pre, x)

    @staticmethod
    def spread(x: Tensor, y: Tensor, mixes: Mixes) -> Tensor:
        """X_j ← post_j·y + Σ_i P_ij X_i."""
        return mixes.post[..., None] * y[..., None, :] + mixes.comb.transpose(-1, -2) @ x


class PlainResidual(nn.Module):
    """The same steps with one stream: u = X, X ← X + y."""

    def mixes(self, x: Tensor) -> None:
        """There is nothing to mix."""

    @staticmethod
    def collapse(x: Tensor, mixes: None) -> Tensor:
        return x[..., 0, :]

    @staticmethod
    def spread(x: Tensor, y: Tensor, mixes: None) -> Tensor:
        return x + y[..., None, :]


class HeadCollapse(nn.Module):
    """`hc_head`: u = Σ w_i X_i before the last norm."""

    def __init__(self, streams: int, hidden: int, hc_eps: float, rms_eps: float) -> None:
        super().__init__()
        self.hc_fn = nn.Parameter(torch.zeros(streams, streams * hidden))
        self.hc_base = nn.Parameter(torch.zeros(streams))
        self.hc_scale = nn.Parameter(torch.ones(1))
        self.hc_eps, self.rms_eps = hc_eps, rms_eps

    def forward(self, x: Tensor) -> Tensor:
        m = normalised_projection(self.hc_fn, x, self.rms_eps)
        weight = torch.sigmoid(m * self.hc_scale[0] + self.hc_base) + self.hc_eps
        return torch.einsum("bti,btid->btd", weight, x)
