"""What training needs beside the forward pass: parameter groups, the indexer's loss, balance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .model import ExpertMesh
from .records import Records

TABLE_RATE = 5.0  # learning rate of Engram tables, in units of the others'


def parameter_groups(model: ExpertMesh, rate: float, decay: float) -> list[dict[str, Any]]:
    """Groups for torch.optim: matrices; vectors without decay; Engram tables."""
    matrices, vectors, tables = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if ".engram.embed." in name:
            tables.append(parameter)
        else:
            (matrices if parameter.dim() > 1 else vectors).append(parameter)
    return [
        {"params": matrices, "lr": rate, "weight_decay": decay},
        {"params": vectors, "lr": rate, "weight_decay": 0.0},
        {"params": tables, "lr": rate * TABLE_RATE, "weight_decay": 0.0},
    ]


def indexer_loss(records: Records) -> Tensor:
    """Mean KL(attention ‖ softmax of index scores) over tokens and full layers.

    Needs the records "index_scores" and "attention". The target of a full layer is the attention
    of all layers that use its selection, summed and normalised. Positions to which attention
    paid nothing (not selected) are left out of the softmax. Only the indexers get a gradient:
    their inputs are detached in the forward pass.
    """
    scores, attention = records["index_scores"], records["attention"]
    losses = []
    for layer in sorted(scores):
        users = [layer]
        while users[-1] + 1 in attention and users[-1] + 1 not in scores:
            users.append(users[-1] + 1)
        target = torch.stack([attention[user] for user in users]).sum(0)
        target = target / target.sum(-1, keepdim=True)
        attended = target > 0
        log_q = scores[layer].masked_fill(~attended, -torch.inf).log_softmax(-1)
        log_q = log_q.masked_fill(~attended, 0.0)
        log_p = target.masked_fill(~attended, 1.0).log()
        losses.append((target * (log_p - log_q)).sum(-1).mean())
    return torch.stack(losses).mean()


@torch.no_grad()
def balance_gates(model: ExpertMesh, loads: dict[int, Tensor], speed: float) -> None:
    """Moves each selection bias by `speed` towards an even load (record "expert_load")."""
    for layer, load in loads.items():
        bias = model.model.layers[layer].mlp.gate.e_score_correction_bias
        bias.add_(speed * torch.sign(load.float().mean() - load).to(bias.dtype))
