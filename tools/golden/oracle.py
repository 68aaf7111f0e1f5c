"""Runs a checkpoint with the transformers classes: float32, eager, what its hooks see."""

from __future__ import annotations

import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from .goldenfile import Recorded
from .page import positions_of

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class LoadError(RuntimeError):
    """The class did not take the checkpoint as it is."""


def load(folder: Path) -> nn.Module:
    """The model of a directory; LoadError if it misses or does not know a tensor."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager",
        experts_implementation="eager", output_loading_info=True)
    wrong = {key: sorted(map(str, value)) for key, value in info.items() if value}
    if wrong:
        raise LoadError(f"{folder}: {wrong}")
    return model.eval()


def _zero_masked_choice(gate: nn.Module, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gate of docs/formats.md §1.6 whose excluded groups get 0.0; equal: the lower id."""
    z = nn.functional.linear(hidden.reshape(-1, gate.weight.shape[1]).float(),
                             gate.weight.float())
    s = torch.sigmoid(z)
    b = (s + gate.e_score_correction_bias).unflatten(-1, (gate.num_group, -1))
    groups = b.topk(2, -1).values.sum(-1).topk(gate.topk_group, -1).indices
    excluded = torch.ones(b.shape[:2], dtype=torch.bool).scatter(-1, groups, False)
    b = b.masked_fill(excluded[..., None], 0.0).flatten(-2)
    chosen = torch.sort(b, dim=-1, descending=True, stable=True).indices[:, :gate.top_k]
    w = s.gather(-1, chosen)
    if gate.norm_topk_prob:
        w = w / (w.sum(-1, keepdim=True) + 1e-20)
    return z, w * gate.routed_scaling_factor, chosen


def mask_groups_with_zero(model: nn.Module) -> None:
    """Replaces the gates: the released class masks excluded groups with −inf."""
    for layer in model.model.layers:
        if hasattr(layer.mlp, "gate"):
            layer.mlp.gate.forward = types.MethodType(_zero_masked_choice, layer.mlp.gate)


class Watcher:
    """Hooks on a model that gather, call after call, what Recorded wants."""

    def __init__(self, model: nn.Module) -> None:
        self._seen: dict[str, dict[int, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        self._handles = []
        for number, layer in enumerate(model.model.layers):
            self._watch(layer, "hidden", number, lambda out: out[0] if isinstance(out, tuple)
                        else out)
            if hasattr(layer.mlp, "gate"):
                self._watch(layer.mlp.gate, "experts", number, lambda out: out[2][None])
            if getattr(layer.self_attn, "indexer", None) is not None:
                self._watch(layer.self_attn.indexer, "positions", number, lambda out: out)

    def _watch(self, module: nn.Module, kind: str, layer: int, pick: Any) -> None:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            self._seen[kind][layer].append(pick(out)[0].clone())
        self._handles.append(module.register_forward_hook(hook))

    def remove(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()

    def rows(self, kind: str) -> dict[int, list[Tensor]]:
        """layer → one row per token."""
        return {layer: [row for call in calls for row in call]
                for layer, calls in self._seen[kind].items()}


def _selected(rows: list[Tensor], width: int) -> np.ndarray:
    """[T, width] ascending positions; top-k of a short row holds future ones, left out here."""
    seen = np.zeros((len(rows), len(rows)), dtype=bool)
    for t, row in enumerate(rows):
        seen[t, row[row <= t].long().numpy()] = True
    return positions_of(seen, width)


@torch.no_grad()
def decode(model: nn.Module, name: str, prompt: np.ndarray, steps: int) -> Recorded:
    """One prefill call and `steps` greedy tokens through the cache, one a call."""
    watcher = Watcher(model)
    tokens = prompt.tolist()
    out = model(torch.tensor([tokens]), use_cache=True)
    logits = [out.logits[0]]
    for _ in range(steps):
        tokens.append(int(np.argmax(logits[-1][-1].numpy())))
        out = model(torch.tensor([tokens[-1:]]), past_key_values=out.past_key_values,
                    use_cache=True)
        logits.append(out.logits[0])
    watcher.remove()
    recorded = Recorded(name, len(prompt), np.array(tokens), torch.cat(logits).numpy(),
                        {layer: torch.stack(rows).numpy()
                         for layer, rows in watcher.rows("hidden").items()})
    for layer, rows in watcher.rows("experts").items():
        recorded.experts[layer] = torch.stack(rows).sort(-1).values.numpy()
    for layer, rows in watcher.rows("positions").items():
        recorded.positions[layer] = _selected(rows, model.config.index_topk)
    return recorded


@torch.no_grad()
def prefill_logits(model: nn.Module, tokens: np.ndarray) -> np.ndarray:
    """Logits [T, V] of one call without a cache."""
    ids = torch.from_numpy(tokens).long()[None]
    return model(ids, use_cache=False).logits[0].numpy()
