"""Feed-forward blocks: SwiGLU, and the mixture of experts (docs/model-family.md §4.6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from .attention import Step, stable_top
from .config import Config

_WEIGHT_SUM_EPS = 1e-20


class FeedForward(nn.Module):
    """down(silu(gate x) ⊙ up x)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    """Chooses experts by σ(z) + bias and weighs them by σ(z) alone."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.chosen, self.factor = config.num_experts_per_tok, config.routed_scaling_factor
        self.weight = nn.Parameter(torch.zeros(config.n_routed_experts, config.hidden_size))
        self.e_score_correction_bias = nn.Parameter(
            torch.zeros(config.n_routed_experts), requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(ids [..., k] ascending, their weights [..., k], selection scores [..., E])."""
        s = torch.sigmoid(linear(x, self.weight))
        b = (s + self.e_score_correction_bias).detach()
        ids = stable_top(b, self.chosen).sort(-1).values
        weight = s.gather(-1, ids)
        weight = self.factor * weight / (weight.sum(-1, keepdim=True) + _WEIGHT_SUM_EPS)
        return ids, weight, b


class Experts(nn.Module):
    """All routed experts of a layer; the checkpoint holds one set of matrices per expert."""

    def __init__(self, count: int, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Parameter(torch.zeros(count, width, hidden))
        self.up_proj = nn.Parameter(torch.zeros(count, width, hidden))
        self.down_proj = nn.Parameter(torch.zeros(count, hidden, width))

    def one_by_one(self, x: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
        """Σ w_e · expert_e(x) for x [M, D], ids and weight [M, k]: each expert sees its rows."""
        y = torch.zeros_like(x)
        for expert in range(self.gate_proj.shape[0]):
            row, slot = (ids == expert).nonzero(as_tuple=True)
            if row.numel() == 0:
                continue
            own = x[row]
            inner = silu(linear(own, self.gate_proj[expert])) * linear(own, self.up_proj[expert])
            out = linear(inner, self.down_proj[expert])
            y = y.index_add(0, row, weight[row, slot, None] * out)
        return y

    def all_at_once(self, x: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
        """The same sum as two products of width E·I; experts not chosen weigh 0."""
        dense = x.new_zeros(x.shape[0], self.gate_proj.shape[0]).scatter(-1, ids, weight)
        inner = silu(linear(x, self.gate_proj.flatten(0, 1)))
        inner = inner * linear(x, self.up_proj.flatten(0, 1))                # [M, E·I]
        inner = inner.unflatten(-1, self.gate_proj.shape[:2]) * dense[..., None]
        return inner.flatten(-2) @ self.down_proj.transpose(1, 2).flatten(0, 1)


class MixtureOfExperts(nn.Module):
    """The chosen experts' weighted sum, plus the shared expert."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        hidden, width = config.hidden_size, config.moe_intermediate_size
        self.layer = layer
        self.gate = Gate(config)
        self.experts = Experts(config.n_routed_experts, hidden, width)
        self.shared_experts = (FeedForward(hidden, config.n_shared_experts * width)
                               if config.n_shared_experts else None)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        ids, weight, scores = self.gate(x)
        step.records.put("experts", self.layer, ids.to(torch.int32))
        step.records.put("gate_scores", self.layer, scores)
        if step.records.wants("expert_load"):
            load = torch.bincount(ids.flatten(), minlength=scores.shape[-1])
            step.records.put("expert_load", self.layer, load)
        routed = self.experts.all_at_once if step.dense_experts else self.experts.one_by_one
        y = routed(x.flatten(0, 1), ids.flatten(0, 1), weight.flatten(0, 1)).view_as(x)
        return y if self.shared_experts is None else y + self.shared_experts(x)
