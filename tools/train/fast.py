"""The blocks of the reference, faster for training on a CPU: the same formulas, gradients by hand
or fused, large products in bfloat16. `accelerate` changes one model; tests compare both forms.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from tools.reference.attention import Indexer
from tools.reference.engram import Engram
from tools.reference.feed_forward import Experts, Gate
from tools.reference.hashing import hash_rows
from tools.reference.norm import RmsNorm
from tools.reference.residual import (HeadCollapse, HyperConnection, Mixes,
                                      normalised_projection)


class _Sinkhorn(torch.autograd.Function):
    """P of logits [n source, n destination, M]; keeps each normalisation for the way back."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, iterations: int, eps: float) -> Tensor:  # noqa: D102
        start = logits.softmax(1)
        p, kept = start + eps, [start]
        for axis in (0, *(1, 0) * (iterations - 1)):
            inverse = 1 / (p.sum(axis, keepdim=True) + eps)
            p = p * inverse
            kept += [p, inverse]
        ctx.save_for_backward(*kept)
        return p

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: D102
        start, *kept = ctx.saved_tensors
        gradient = gradient.contiguous()
        for i in reversed(range(len(kept) // 2)):
            p, inverse = kept[2 * i], kept[2 * i + 1]
            gradient = (gradient - (gradient * p).sum(i % 2, keepdim=True)) * inverse
        along = (gradient * start).sum(1, keepdim=True)
        return start * (gradient - along), None, None


def sinkhorn(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """As residual.sinkhorn, for [B, T, n, n]; tokens on the last axis inside."""
    n = logits.shape[-1]
    inner = logits.reshape(-1, n, n).permute(1, 2, 0).contiguous()
    p: Tensor = _Sinkhorn.apply(inner, iterations, eps)
    return p.permute(2, 0, 1).contiguous().view_as(logits)


def _mixes(self: HyperConnection, x: Tensor) -> Mixes:
    n = self.streams
    m = normalised_projection(self.fn, x, self.rms_eps)
    pre, post, comb = m.split((n, n, n * n), -1)
    base_pre, base_post, base_comb = self.base.split((n, n, n * n))
    logits = (comb * self.scale[2] + base_comb).unflatten(-1, (n, n))
    return Mixes(torch.sigmoid(pre * self.scale[0] + base_pre) + self.hc_eps,
                 2 * torch.sigmoid(post * self.scale[1] + base_post),
                 sinkhorn(logits, self.iterations, self.hc_eps))


def _spread(x: Tensor, y: Tensor, post: Tensor, comb: Tensor) -> Tensor:
    mixed = (comb[..., :, :, None] * x[..., :, None, :]).sum(-3)
    return post[..., None] * y[..., None, :] + mixed


def _experts(x: Tensor, dense: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    inner = silu(linear(x, gate.flatten(0, 1))) * linear(x, up.flatten(0, 1))
    inner = inner.unflatten(-1, gate.shape[:2]) * dense[..., None].to(inner.dtype)
    return inner.flatten(-2) @ down.transpose(1, 2).flatten(0, 1)


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function outside autocast, on float32."""
    def run(*arguments: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return function(*[one.float() if isinstance(one, Tensor) and one.is_floating_point()
                              else one for one in arguments])
    return run


class _Compiled:
    """Fused forms, shared by all layers."""

    def __init__(self) -> None:
        self.spread = _in_float32(torch.compile(_spread, dynamic=False))
        self.experts = torch.compile(_experts, dynamic=False)
        self.delta = _in_float32(torch.compile(Engram.delta, dynamic=False))


def accelerate(model: torch.nn.Module, noise: float = 0.0) -> None:
    """Changes the methods of `model` in place for training mode; in evaluation mode they are the
    reference. Each row that the memory reads is another one of its column with probability
    `noise`."""
    fused = _Compiled()

    def own(module: torch.nn.Module, name: str, function: Callable[..., Any]) -> None:
        plain, fast = getattr(module, name), types.MethodType(_in_float32(function), module)
        setattr(module, name, lambda *given: (fast if module.training else plain)(*given))

    def all_at_once(self: Experts, x: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
        if not self.training:
            return Experts.all_at_once(self, x, ids, weight)
        dense = weight.new_zeros(x.shape[0], self.gate_proj.shape[0]).scatter(-1, ids, weight)
        return fused.experts(x, dense, self.gate_proj, self.up_proj, self.down_proj)

    def remember(self: Engram, x: Tensor, classes: np.ndarray, history: np.ndarray) -> Tensor:
        if not self.training:
            return Engram.forward(self, x, classes, history)
        rows = torch.from_numpy(hash_rows(classes, history, self.table()))
        if noise:
            other = (torch.rand(rows.shape) * self.primes).long() + (
                self.primes.cumsum(0) - self.primes)
            rows = torch.where(torch.rand(rows.shape) < noise, other, rows)
        return x + fused.delta(self, x, self.embed(rows).flatten(-2))

    for module in model.modules():
        if isinstance(module, HyperConnection):
            own(module, "mixes", _mixes)
            own(module, "collapse", lambda _, x, mixes: HyperConnection.collapse(x, mixes))
            own(module, "spread", lambda _, x, y, mixes: fused.spread(x, y, mixes.post, mixes.comb))
        elif isinstance(module, (Gate, Indexer, RmsNorm, HeadCollapse)):
            own(module, "forward", type(module).forward)
        elif isinstance(module, Experts):
            module.all_at_once = types.MethodType(all_at_once, module)
        elif isinstance(module, Engram):
            module.forward = types.MethodType(remember, module)
