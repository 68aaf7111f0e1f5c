"""Pictures of a trained model: loss, load of the experts, gate of the memory, selection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
# pylint: disable=wrong-import-position
import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from tools.reference import engram as engram_module  # noqa: E402
from tools.reference.model import ExpertMesh  # noqa: E402

from .corpus import Corpus  # noqa: E402

_QUESTION, _ANSWER = "What is the capital of France?", "The capital of France is Paris."
_MEASURES = ("trained", "held_out", "unseen", "trained_without_memory", "outside")


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def loss(log: Path, out: Path) -> None:
    """Loss of the words and recall over steps, from log.jsonl."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [e for e in entries if "words" in e]
    checks = [e for e in entries if "trained" in e]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    axes[0].plot([e["step"] for e in steps], [e["words"] for e in steps], label="tokens")
    axes[0].plot([e["step"] for e in steps], [e["indexers"] for e in steps], label="indexers (KL)")
    axes[0].set(xlabel="step", ylabel="loss, nats", yscale="log", title="Loss")
    axes[0].legend()
    for name in _MEASURES:
        axes[1].plot([e["step"] for e in checks], [e[name] for e in checks], marker=".",
                     label=name.replace("_", " "))
    axes[1].set(xlabel="step", ylabel="share exact", ylim=(0, 1.02), title="Recall")
    axes[1].legend(fontsize=8)
    _save(figure, out / "loss.svg")


@torch.no_grad()
def expert_load(model: ExpertMesh, tokens: torch.Tensor, out: Path) -> dict[int, float]:
    """Rows of every expert, by layer, largest first; returns largest over mean by layer."""
    loads = model(tokens, records=("expert_load",)).records["expert_load"]
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for layer, load in sorted(loads.items()):
        share = np.sort(load.numpy())[::-1] / load.float().mean().item()
        axis.plot(range(1, len(share) + 1), share, label=f"layer {layer}")
    axis.axhline(6, color="grey", linestyle=":", label="limit")
    axis.set(xlabel="expert, by load", ylabel="rows / mean", title="Load of the experts")
    axis.legend(fontsize=8)
    _save(figure, out / "expert_load.svg")
    return {layer: float(load.max() / load.float().mean()) for layer, load in loads.items()}


@torch.no_grad()
def memory_gate(model: ExpertMesh, corpus: Corpus, out: Path) -> None:
    """Mean gate over streams by token of a question and its answer, per layer with a memory."""
    gates: list[torch.Tensor] = []
    plain = engram_module.gate

    def kept(d: torch.Tensor) -> torch.Tensor:
        gates.append(plain(d))
        return gates[-1]

    ids = [*corpus.prompt(_QUESTION), *corpus.encode(_ANSWER)]
    engram_module.gate = kept
    try:
        model(torch.tensor([ids]))
    finally:
        engram_module.gate = plain
    table = torch.stack([gate[0].mean(-1) for gate in gates]).numpy()
    figure, axis = plt.subplots(figsize=(10, 2.8))
    picture = axis.imshow(table, aspect="auto", vmin=0, vmax=1, cmap="viridis")
    labels = [corpus.tokenizer.decode([i], skip_special_tokens=False) for i in ids]
    axis.set_xticks(range(len(ids)), [label.replace("｜", "|").replace("▁", "_")
                                      for label in labels], rotation=60, ha="right")
    axis.set_yticks(range(len(gates)), [f"layer {i}" for i in model.config.engram_layer_ids])
    axis.set_title("Gate of the memory by token")
    figure.colorbar(picture)
    _save(figure, out / "memory_gate.svg")


@torch.no_grad()
def selection(model: ExpertMesh, tokens: torch.Tensor, out: Path) -> None:
    """How far back the selected positions lie, and which are selected, per full layer."""
    found = model(tokens[:1], records=("positions",)).records["positions"]
    length = tokens.shape[1]
    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 3.8), sharey=True)
    for axis, (layer, positions) in zip(np.atleast_1d(axes), sorted(found.items())):
        chosen = positions[0].numpy()
        row = np.repeat(np.arange(length)[:, None], chosen.shape[1], 1)
        axis.plot(chosen[chosen >= 0], row[chosen >= 0], ",", color="black", rasterized=True)
        axis.set(title=f"layer {layer}", xlabel="selected position", xlim=(0, length),
                 ylim=(length, 0))
    np.atleast_1d(axes)[0].set_ylabel("position of the token")
    _save(figure, out / "selection.svg")


def draw(model: ExpertMesh, corpus: Corpus, log: Path, out: Path) -> dict[int, float]:
    """All four into `out`; returns the largest load over the mean by layer."""
    out.mkdir(parents=True, exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "expertmesh"
    tokens = torch.from_numpy(corpus.batch(20_000_000, 8, 512)[0])
    loss(log, out)
    memory_gate(model, corpus, out)
    selection(model, tokens, out)
    return expert_load(model, tokens, out)
