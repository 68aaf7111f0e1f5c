"""Statements 1 and 2: products of residual maps, as float32 computes them."""

from __future__ import annotations

import dataclasses

import torch

from tools.reference.residual import sinkhorn

MAPS = 116          # two sublayers of 58 layers: `1t`
STREAMS, ITERATIONS, EPS = 4, 20, 1e-6
SPREADS = (1.0, 3.0, 10.0, 30.0, 100.0)
LOST_PER_MAP = 4.1 * EPS + 2.4e-7   # of the mass at most: the page's bound, and float32 rounding


@dataclasses.dataclass(frozen=True)
class Products:
    """Of many products of MAPS maps at one spread of the logits."""

    spread: float
    column_high: float        # largest Σ_i P_ij
    column_lost: float        # largest 1 − Σ_i P_ij
    row_error: float          # largest |Σ_j P_ij − 1|: η
    spectral: float           # largest ‖P‖₂
    mass: float               # smallest share of the mass behind all maps
    growth: float             # largest ‖X_l‖ / ‖X_0‖ at any l, ‖X‖ = max_j ‖X_j‖₂
    path: tuple[float, ...]   # mean ‖X_l‖ / ‖X_0‖, l = 0 … MAPS


def products(spread: float, count: int = 200, hidden: int = 64, seed: int = 0) -> Products:
    """Draws `count` products with logits spread·ξ and follows random streams through them."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, STREAMS, hidden, generator=draw)
    start = x.norm(dim=-1).amax(-1)
    mass = torch.ones(count, STREAMS)
    high = lost = row = spectral = growth = 0.0
    path = [1.0]
    for _ in range(MAPS):
        logits = spread * torch.randn(count, STREAMS, STREAMS, generator=draw)
        p = sinkhorn(logits, ITERATIONS, EPS)
        columns = p.double().sum(-2)
        high = max(high, float(columns.max()))
        lost = max(lost, float(1 - columns.min()))
        row = max(row, float((p.double().sum(-1) - 1).abs().max()))
        spectral = max(spectral, float(torch.linalg.matrix_norm(p.double(), ord=2).max()))
        x = p.transpose(-1, -2) @ x
        mass = (p.transpose(-1, -2) @ mass[..., None])[..., 0]
        ratio = x.norm(dim=-1).amax(-1) / start
        growth = max(growth, float(ratio.max()))
        path.append(float(ratio.mean()))
    return Products(spread, high, lost, row, spectral, float(mass.min()), growth, tuple(path))
