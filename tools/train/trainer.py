"""Trains the demo model: seeded, resumable, on CPU or a GPU.

A step is a function of (seed, step) and the state, so a run that was cut off goes on as if it had
not been. States are written aside and renamed: a half-written one is never read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tools.reference import presets, training, weights
from tools.reference.model import ExpertMesh

from .corpus import Corpus
from .fast import accelerate
from .tokenizer import token_classes

STATE = "state.pt"
LOG = "log.jsonl"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is; kept with it."""

    seed: int = 1
    steps: int = 2_000
    tokens: int = 2_048          # of a step, in lanes of `length`, at last of `last_length`
    length: int = 512
    last_length: int = 1_024
    last_share: float = 0.15
    rate: float = 2.5e-3
    last_rate: float = 5e-5
    decay: float = 0.05
    warm_up: int = 100
    dense_steps: int = 400       # attention sees everything while the indexers learn
    indexer_weight: float = 0.5
    balance_speed: float = 1e-3
    noise: float = 0.04          # share of memory rows that are another's
    save_every: int = 50
    check_every: int = 250


def rate_at(plan: Plan, step: int) -> float:
    """Linear warm-up, then a cosine down to last_rate."""
    if step < plan.warm_up:
        return plan.rate * (step + 1) / plan.warm_up
    share = min(1.0, (step - plan.warm_up) / max(1, plan.steps - plan.warm_up))
    return plan.last_rate + (plan.rate - plan.last_rate) * 0.5 * (1 + math.cos(math.pi * share))


def length_at(plan: Plan, step: int) -> int:
    """Tokens of a lane: longer ones at last."""
    return plan.last_length if step >= plan.steps * (1 - plan.last_share) else plan.length


def loss_of(model: ExpertMesh, batch: tuple[Tensor, Tensor, Tensor], plan: Plan,
            dense: bool) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """(loss of the words, loss of the indexers, rows per expert and layer)."""
    seen, memory, weight = batch
    with torch.autocast("cpu", torch.bfloat16):
        out = model(seen[:, :-1], records=("index_scores", "attention", "expert_load"),
                    dense_experts=True, attend_all=dense, memory_tokens=memory[:, :-1])
    each = cross_entropy(out.logits.float().flatten(0, 1), seen[:, 1:].flatten(), reduction="none")
    weight = weight[:, 1:].flatten()
    return ((each * weight).sum() / weight.sum(), training.indexer_loss(out.records),
            out.records["expert_load"])


def new_model(corpus: Corpus) -> ExpertMesh:
    """The preset, its memory keyed by the classes of the corpus's tokenizer."""
    classes = token_classes(corpus.tokenizer, presets.preset("demo").vocab_size)
    config = presets.preset("demo", bos_token_id=corpus.bos, eos_token_id=corpus.eos,
                            pad_token_id=2, engram_num_classes=int(classes.max()) + 1)
    return ExpertMesh(config, presets.hash_data(config, classes))


class Trainer:
    """One run in `folder`."""

    def __init__(self, folder: Path, corpus: Corpus, plan: Plan, device: str = "cpu") -> None:
        self.folder, self.corpus, self.plan, self.device = folder, corpus, plan, device
        self.model = new_model(corpus).to(device)
        weights.start_training(self.model, plan.seed)
        accelerate(self.model, plan.noise)
        self.optimizer = torch.optim.AdamW(
            training.parameter_groups(self.model, plan.rate, plan.decay), betas=(0.9, 0.98))
        self.factors = [group["lr"] / plan.rate for group in self.optimizer.param_groups]
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).exists():
            self.resume()

    def resume(self) -> None:
        """Goes on where the last whole state stands."""
        state = torch.load(self.folder / STATE, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self) -> None:
        """Written aside, then renamed."""
        aside = self.folder / (STATE + ".partial")
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                    "step": self.step}, aside)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.rename(self.folder / STATE)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens of a step."""
        length = length_at(self.plan, step)
        arrays = self.corpus.batch(step, self.plan.tokens // length, length + 1)
        seen, memory, weight = (torch.from_numpy(one).to(self.device) for one in arrays)
        return seen, memory, weight

    def take_step(self) -> dict[str, float]:
        """One update; its losses."""
        plan = self.plan
        self.model.train()
        torch.manual_seed(plan.seed + self.step)
        for group, factor in zip(self.optimizer.param_groups, self.factors):
            group["lr"] = rate_at(plan, self.step) * factor
        words, indexers, loads = loss_of(self.model, self.batch(self.step), plan,
                                         self.step < plan.dense_steps)
        self.optimizer.zero_grad(set_to_none=True)
        (words + plan.indexer_weight * indexers).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        training.balance_gates(self.model, loads, plan.balance_speed)
        self.step += 1
        worst = max(float(load.max() / load.float().mean()) for load in loads.values())
        return {"words": words.item(), "indexers": indexers.item(), "norm": norm.item(),
                "expert_share": worst}

    def log(self, entry: dict[str, Any]) -> None:
        """A line of log.jsonl, and of the screen."""
        line = json.dumps(entry)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def run(self, until: int, check: Any = None) -> None:
        """Steps up to `until`; saves and checks on the way."""
        begin, first = time.monotonic(), self.step
        while self.step < until:
            losses = self.take_step()
            if self.step % 50 == 0:
                tokens = (self.step - first) * self.plan.tokens
                self.log({"step": self.step, **{k: round(v, 4) for k, v in losses.items()},
                          "tokens_per_s": round(tokens / (time.monotonic() - begin))})
            if self.step % self.plan.save_every == 0:
                self.save()
            if check is not None and self.step % self.plan.check_every == 0:
                self.log({"step": self.step, **check(self.model.eval(), self.corpus)})
        self.save()
