"""Greedy decoding through the cache: a prefill, then one token a call."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .model import Cache, ExpertMesh, Output


@dataclasses.dataclass
class Decoded:
    """A sequence of T = prompt + steps tokens."""

    tokens: Tensor         # int64 [T]
    outputs: list[Output]  # of the prefill (all prompt tokens) and of each step (one token)

    @property
    def logits(self) -> Tensor:
        """[T, V]; row t follows token t."""
        return torch.cat([output.logits[0] for output in self.outputs])

    def record(self, name: str, layer: int) -> Tensor:
        """A record of all calls, [T, …]; for those whose shape does not grow with the cache."""
        return torch.cat([output.records[name][layer][0] for output in self.outputs])


def step(model: ExpertMesh, token: int, cache: Cache, records: tuple[str, ...] = ()) -> Output:
    """One more token of one lane: logits [1, 1, V]; extends the cache."""
    return model(torch.tensor([[token]]), cache, records=records)


@torch.no_grad()
def greedy(model: ExpertMesh, prompt: list[int], steps: int, start_position: int = 0,
           records: tuple[str, ...] = ()) -> Decoded:
    """Prefills `prompt` in one call and then decodes `steps` tokens, each the argmax."""
    cache = model.new_cache(1, start_position)
    outputs = [model(torch.tensor([prompt]), cache, records=records)]
    tokens = list(prompt)
    for _ in range(steps):
        tokens.append(int(outputs[-1].logits[0, -1].argmax()))
        outputs.append(step(model, tokens[-1], cache, records))
    return Decoded(torch.tensor(tokens), outputs)
