"""Random weights for goldens, and start values for training (docs/model-family.md §6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .engram import Engram
from .feed_forward import Experts, Gate
from .model import ExpertMesh
from .norm import RmsNorm
from .residual import HeadCollapse, HyperConnection

_QUARTER = -1.0986  # σ = ¼
_COMB_DIAGONAL = 4.0
_TABLE_STD = 0.02
_SCALE_START = 0.01


class _Draw:
    """Standard normal numbers from one generator, in the order of the modules."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, target: Tensor, std: float = 1.0, mean: float = 0.0) -> None:
        """Fills `target` with mean + std·ξ."""
        drawn = torch.randn(target.shape, generator=self.generator, dtype=torch.float32)
        target.copy_(mean + std * drawn)


def _linears(module: nn.Module) -> list[Tensor]:
    """Matrices whose last axis is the fan-in."""
    if isinstance(module, nn.Linear):
        return [module.weight]
    if isinstance(module, Gate):
        return [module.weight]
    if isinstance(module, Experts):
        return [module.gate_proj, module.up_proj, module.down_proj]
    return []


def _random_residual(module: nn.Module, draw: _Draw) -> None:
    if isinstance(module, HyperConnection):
        draw(module.fn, module.fn.shape[1]**-0.5)
        draw(module.base, 0.5)
        module.scale.fill_(1.0)
    elif isinstance(module, HeadCollapse):
        draw(module.hc_fn, module.hc_fn.shape[1]**-0.5)
        draw(module.hc_base, 0.5)
        module.hc_scale.fill_(1.0)


@torch.no_grad()
def randomise(model: ExpertMesh, seed: int) -> ExpertMesh:
    """Random weights under which no mechanism is near its neutral point."""
    draw = _Draw(seed)
    for module in model.modules():
        for matrix in _linears(module):
            draw(matrix, matrix.shape[-1]**-0.5)
        _random_residual(module, draw)
        if isinstance(module, nn.Embedding):  # token embedding and Engram tables
            draw(module.weight)
        elif isinstance(module, Gate):
            draw(module.e_score_correction_bias, 0.1)
        elif isinstance(module, RmsNorm):
            draw(module.weight, 0.1, 1.0)
        elif isinstance(module, nn.LayerNorm):
            draw(module.weight, 0.1, 1.0)
            draw(module.bias, 0.1)
        elif isinstance(module, Engram):
            draw(module.q_weight, 0.1, 1.0)
            draw(module.k_weight, 0.1, 1.0)
    return model


@torch.no_grad()
def start_training(model: ExpertMesh, seed: int) -> ExpertMesh:
    """Start values for training: streams nearly apart, norms 1, the memory small."""
    draw = _Draw(seed)
    config = model.config
    std = config.initializer_range or 0.02
    for module in model.modules():
        for matrix in _linears(module):
            draw(matrix, std)
        if isinstance(module, HyperConnection):
            n = module.streams
            draw(module.fn, module.fn.shape[1]**-0.5)
            module.scale.fill_(_SCALE_START)
            module.base.zero_()
            module.base[:n] = _QUARTER
            module.base[2 * n:].view(n, n).fill_diagonal_(_COMB_DIAGONAL)
        elif isinstance(module, HeadCollapse):
            draw(module.hc_fn, module.hc_fn.shape[1]**-0.5)
            module.hc_scale.fill_(_SCALE_START)
            module.hc_base.fill_(_QUARTER)
        elif isinstance(module, nn.Embedding):
            draw(module.weight, std if module is model.model.embed_tokens else _TABLE_STD)
    _shrink_outputs(model, 1.0 / math.sqrt(2 * config.num_hidden_layers))
    return model


def _shrink_outputs(model: ExpertMesh, factor: float) -> None:
    """Matrices that write to the streams start smaller, the deeper the model."""
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
            parameter.mul_(factor)
