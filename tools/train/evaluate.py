"""Recall by exact match, without decoding: greedy decoding gives the answer if and only if every
token of it is the likeliest behind the true ones before."""

from __future__ import annotations

import random

import torch

from tools.reference.engram import Engram
from tools.reference.model import ExpertMesh

from . import phrasings
from .corpus import Corpus, Question

_BATCH = 16


@torch.no_grad()
def exact(model: ExpertMesh, corpus: Corpus,
          asked: list[tuple[str, str, str | None]]) -> list[bool]:
    """For (question, answer, question that the memory hears or None): whether greedy decoding
    gives exactly the answer and ends."""
    right = []
    for start in range(0, len(asked), _BATCH):
        part = asked[start:start + _BATCH]
        prompts = [corpus.prompt(q) for q, _, _ in part]
        tails = [[*corpus.encode(a), corpus.eos] for _, a, _ in part]
        length = max(len(p) + len(t) for p, t in zip(prompts, tails))
        rows = torch.full((len(part), length), corpus.eos)
        for row, prompt, tail in zip(rows, prompts, tails):
            row[:len(prompt) + len(tail)] = torch.tensor(prompt + tail)
        heard = rows.clone()
        for row, (question, _, other) in zip(heard, part):
            if other is not None:
                row[:len(corpus.prompt(other))] = torch.tensor(corpus.prompt(other))
        best = model(rows, dense_experts=True, memory_tokens=heard).logits.argmax(-1)
        for i, (prompt, tail) in enumerate(zip(prompts, tails)):
            said = best[i, len(prompt) - 1:len(prompt) + len(tail) - 1]
            right.append(bool((said == torch.tensor(tail)).all()))
    return right


class WithoutMemory:
    """While it is entered, the memory adds nothing."""

    def __init__(self, model: ExpertMesh) -> None:
        self.values = [module.wkv.weight for module in model.modules()
                       if isinstance(module, Engram)]
        self.kept = [value.detach().clone() for value in self.values]

    def __enter__(self) -> None:
        for value in self.values:
            value.data.zero_()

    def __exit__(self, *_: object) -> None:
        for value, kept in zip(self.values, self.kept):
            value.data.copy_(kept)


def _share(found: list[bool]) -> float:
    return round(sum(found) / max(1, len(found)), 4)


def check(model: ExpertMesh, corpus: Corpus, count: int = 250) -> dict[str, float]:
    """Recall by wording, without memory, with an exchanged memory, and of outside questions."""
    asked: list[Question] = corpus.questions()
    random.Random(0).shuffle(asked)
    shares = {}
    for wording in ("trained", "held_out", "unseen"):
        part = [(q.prompt, q.answer, None) for q in asked if q.wording == wording][:count]
        shares[wording] = _share(exact(model, corpus, part))
        if wording == "trained":
            with WithoutMemory(model):
                shares["trained_without_memory"] = _share(exact(model, corpus, part))
    shares["outside"] = _share(exact(model, corpus, [
        (q, phrasings.UNKNOWN, None) for q in phrasings.OUTSIDE_EVALUATION]))
    return shares
