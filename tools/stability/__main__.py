"""python -m tools.stability: measures, and writes docs/stability.md with its plots."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch

from tools.reference import presets
from tools.reference.model import ExpertMesh
from tools.reference.weights import randomise

from . import activations, dilution, streams

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "expertmesh"
from matplotlib import pyplot  # noqa: E402  after the backend is chosen

DOCS = Path(__file__).resolve().parents[2] / "docs"
_NO_DATE = {"Date": None}


def _save(figure: pyplot.Figure, name: str) -> None:
    figure.tight_layout()
    figure.savefig(DOCS / "stability" / name, metadata=_NO_DATE)
    pyplot.close(figure)


def _plot_streams(found: list[streams.Products]) -> None:
    figure, axis = pyplot.subplots(figsize=(6, 3.2))
    for one in found:
        axis.plot(one.path, label=f"logits {one.spread:g}·ξ")
    axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axis.set(xlabel="maps applied", ylabel="largest stream, mean of 200 runs", ylim=(0, 1.1))
    axis.legend(fontsize=7)
    _save(figure, "streams.svg")


def _plot_activations(found: list[activations.LayerNorms]) -> None:
    figure, axis = pyplot.subplots(figsize=(6, 3.2))
    layers = [one.layer for one in found]
    axis.semilogy(layers, [one.bound for one in found], "k:", label="allowed by the weights")
    axis.semilogy(layers, [one.measured for one in found], "o-", label="measured")
    axis.set(xlabel="layer of `tiny`, random weights", ylabel="largest stream", xticks=layers)
    axis.legend(fontsize=7)
    _save(figure, "activations.svg")


def _plot_dilution(found: list[dilution.Planted]) -> None:
    figure, axis = pyplot.subplots(figsize=(6, 3.6))
    for number, strength in enumerate(dilution.STRENGTHS):
        own = [one for one in found if one.strength == strength]
        contexts = [one.context for one in own]
        axis.loglog(contexts, [one.dense_p for one in own], f"C{number}o--",
                    label=f"dense, key {strength:g}")
        axis.loglog(contexts, [max(one.sparse_p, 1e-9) for one in own], f"C{number}s-",
                    label=f"{dilution.SELECTED} selected, key {strength:g}")
    axis.set(xlabel="positions", ylabel="share of the planted key", ylim=(1e-9, 2))
    axis.legend(fontsize=6, ncol=2)
    _save(figure, "dilution.svg")


def _page(mixed: list[streams.Products], norms: list[activations.LayerNorms],
          planted: list[dilution.Planted]) -> str:
    lines = [
        "# Stability at any length, measured",
        "The statements of [model-family.md](model-family.md) §7, their numbers and plots. Written "
        "by `python -m tools.stability`; the same statements are tests "
        "(`tools/stability/tests`, `model_stability_test`).", "",
        "## 1, 2. Residual maps do not let streams grow",
        f"Products of {streams.MAPS} maps (two sublayers of 58 layers), {streams.STREAMS} streams, "
        f"{streams.ITERATIONS} Sinkhorn iterations in float32; 200 products for each spread of the "
        "logits. Allowed: columns at most 1, mass left at least "
        f"{1 - streams.MAPS * streams.LOST_PER_MAP:.6f}, growth at most 1.", "",
        "| logits | largest column | most lost by a map | rows off by η | spectral norm | "
        "mass left | growth |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {m.spread:g}·ξ | {m.column_high:.8f} | {m.column_lost:.2e} | {m.row_error:.2e} | "
              f"{m.spectral:.4f} | {m.mass:.6f} | {m.growth:.6f} |" for m in mixed]
    lines += ["", "![largest stream over 116 maps](stability/streams.svg)", "",
              "The columns hold for every spread. The rows do not: with peaked logits η and the "
              "spectral norm leave 1, as §7.2 says, so the mean is kept only approximately.", "",
              "## 3. Activations are bounded by weights alone",
              "`tiny` with random weights, 4 sequences of 400 tokens: the largest stream behind "
              "each layer, and what §7.3 allows whatever the length.", "",
              "| layer | measured | allowed |", "|---|---|---|"]
    lines += [f"| {n.layer} | {n.measured:.1f} | {n.bound:.3g} |" for n in norms]
    lines += ["", "![largest stream by layer](stability/activations.svg)", "",
              "## 4. Dilution is bounded by what is selected, not by the length",
              "One head of `demo` with random weights over a synthetic cache; one key points along "
              "the query, 1 being as long as the others. The share of attention it gets, dense and "
              f"with {dilution.SELECTED} positions selected by the indexer, whose own key points "
              "along its query. Bounds: 1/(1+(m−1)·e^−Δ), Δ being the lead over the other keys. "
              "The selected key's share hardly depends on the length once it is selected; that it "
              "is selected is not claimed (§7.5): `rank` is its place by the indexer.", "",
              "| positions | key | rank | dense | bound | selected | bound | entropy |",
              "|---|---|---|---|---|---|---|---|"]
    lines += [f"| {p.context:,} | {p.strength:g} | {p.rank} | {p.dense_p:.2e} | "
              f"{p.dense_bound:.2e} | {p.sparse_p:.2e} | {p.sparse_bound:.2e} | {p.entropy:.2f} |"
              for p in planted]
    lines += ["", "![share of the planted key by length](stability/dilution.svg)", "",
              "Not claimed, as in §7.5: that the wanted key is selected, that a layer is Lipschitz "
              "with a constant near 1, that quality at long contexts is equal.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measures everything and writes the page."""
    mixed = [streams.products(spread) for spread in streams.SPREADS]
    config = presets.preset("tiny")
    model = randomise(ExpertMesh(config, presets.hash_data(config)), 0)
    tokens = torch.randint(0, 512, (4, 400), generator=torch.Generator().manual_seed(0))
    norms = activations.norms(model, tokens)
    planted = [dilution.plant(context, strength) for strength in dilution.STRENGTHS
               for context in dilution.CONTEXTS]
    (DOCS / "stability").mkdir(exist_ok=True)
    _plot_streams(mixed)
    _plot_activations(norms)
    _plot_dilution(planted)
    (DOCS / "stability.md").write_text(_page(mixed, norms, planted), encoding="utf-8")


if __name__ == "__main__":
    main()
