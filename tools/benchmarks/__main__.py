"""python -m tools.benchmarks: plots build/bench/{lanes,context}.json into docs/benchmarks/."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "expertmesh"
from matplotlib import pyplot  # noqa: E402  after the backend is chosen

ROOT = Path(__file__).resolve().parents[2]
PLOTS = ROOT / "docs" / "benchmarks"
_NO_DATE = {"Date": None}


def _save(figure: pyplot.Figure, name: str) -> None:
    PLOTS.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(PLOTS / name, metadata=_NO_DATE)
    pyplot.close(figure)


def plot_lanes(found: dict[str, Any]) -> None:
    """Tokens a second over lanes, one line per side."""
    figure, axis = pyplot.subplots(figsize=(6, 3.6))
    rows = found["rows"]
    sides = [name.removesuffix("_tok_s") for name in rows[0] if name.endswith("_tok_s")]
    for side in sides:
        axis.plot([row["lanes"] for row in rows], [row[f"{side}_tok_s"] for row in rows], "o-",
                  label=side)
    axis.set(xlabel="lanes", ylabel=f"tok/s, {found['profile']}", xscale="log", ylim=(0, None))
    axis.set_xticks([row["lanes"] for row in rows], [str(row["lanes"]) for row in rows])
    axis.legend()
    _save(figure, "lanes.svg")


def plot_context(found: dict[str, Any]) -> None:
    """Attention of a decode step over the length of the context."""
    figure, axis = pyplot.subplots(figsize=(6, 3.6))
    rows = found["rows"]
    for name, label in (("dense_step_ms", "dense"), ("sparse_step_ms", "sparse, indices shared")):
        axis.loglog([row["length"] for row in rows], [row[name] for row in rows], "o-",
                    label=label)
    axis.set(xlabel="positions", ylabel="attention of a step, ms")
    axis.legend()
    _save(figure, "context.svg")


def main() -> None:
    """Whatever has been measured."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "bench")
    folder = parser.parse_args().results
    for name, plot in (("lanes", plot_lanes), ("context", plot_context)):
        path = folder / f"{name}.json"
        if path.exists():
            plot(json.loads(path.read_text()))
            print(f"{PLOTS / name}.svg")
        else:
            print(f"{path}: not measured, run ./mesh bench {name}")


if __name__ == "__main__":
    main()
