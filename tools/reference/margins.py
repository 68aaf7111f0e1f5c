"""How clear the selections of a run were: gaps in σ (docs/model-family.md §5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .decode import Decoded

RECORDS = ("gate_scores", "index_scores")


def smallest_gap(scores: Tensor, count: int) -> float:
    """Smallest gap between the last chosen and the first rejected candidate of any row.

    scores: [rows, N], −inf where there is no candidate; `count` of them are chosen. In units of
    the standard deviation over the row's candidates. Rows with nothing to reject do not count,
    nor do rows where both are exactly 0: what relu cut off is equal in any arithmetic.
    """
    smallest = math.inf
    for row in scores.double():
        candidates = row[row.isfinite()]
        if candidates.numel() <= count:
            continue
        last, first = candidates.topk(count + 1).values[-2:].tolist()
        if last == first == 0.0:
            continue
        smallest = min(smallest, (last - first) / float(candidates.std(correction=0)))
    return smallest


def margins(decoded: Decoded, chosen_experts: int, topk: int | None) -> dict[str, float | None]:
    """{"experts", "positions", "tokens"} of a run that kept RECORDS; None where nothing chose.

    "tokens" is the gap between the two largest logits behind each decoded token.
    """
    smallest: dict[str, float] = {"tokens": math.inf}
    for output in decoded.outputs:
        for kind, name, count in (("experts", "gate_scores", chosen_experts),
                                  ("positions", "index_scores", topk or 0)):
            for scores in output.records[name].values():
                gap = smallest_gap(scores[0], count)
                smallest[kind] = min(smallest.get(kind, math.inf), gap)
    for output in decoded.outputs[:-1]:
        smallest["tokens"] = min(smallest["tokens"], smallest_gap(output.logits[0, -1:], 1))
    return {kind: smallest[kind] if smallest.get(kind, math.inf) < math.inf else None
            for kind in ("experts", "positions", "tokens")}


@torch.no_grad()
def float64_deviation(decoded: Decoded, model64: torch.nn.Module, start_position: int) -> float:
    """Largest difference of the logits to those of a float64 model, in σ.

    Infinite if a selection differs. The run must have kept "experts" and "positions".
    """
    names = ("experts", "positions")
    cache = model64.new_cache(1, start_position)
    wide = model64(decoded.tokens[None], cache, records=names)
    for name in names:
        for layer, chosen in wide.records[name].items():
            if not torch.equal(chosen[0], decoded.record(name, layer)):
                return math.inf
    return float((wide.logits[0] - decoded.logits).abs().max() / wide.logits.std())
