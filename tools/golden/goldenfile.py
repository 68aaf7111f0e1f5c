"""Files of a golden, and the margins of its selections (format: tests/parity/README.md).

A family plugs in with a module in tools/golden/cases whose list CASES holds a Case per golden.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

FORMAT = 1
MARGIN_MIN = 2e-5         # σ, of experts and positions (docs/model-family.md §5)
NARROW = (2e-5, 1e-4)     # where the smallest margin of a narrow case lies
TOKEN_MARGIN_MIN = 4e-4   # σ, of the two largest logits: twice the tolerance of the comparison
SEEDS_PER_RUN = 1000      # seed N of the command tries the seeds 1000·N … 1000·N + 999
_DTYPES = {"tokens": np.int32, "experts": np.int32, "positions": np.int32,
           "logits": np.float32, "hidden": np.float32}


@dataclasses.dataclass(frozen=True)
class Case:
    """One golden. `write(first_seed, folder)` makes checkpoint/, golden.safetensors and case.json
    in an empty folder, with the first seed ≥ first_seed that keeps the margins."""

    name: str
    write: Callable[[int, Path], Any]


@dataclasses.dataclass
class Recorded:
    """What one sequence left behind: arrays as in tests/parity/README.md."""

    name: str
    prompt_length: int
    tokens: np.ndarray                                              # [T]
    logits: np.ndarray                                              # [T, V]
    hidden: dict[int, np.ndarray]                                   # layer → [T, D] or [T, n, D]
    experts: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)    # layer → [T, k]
    positions: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)  # layer → [T, K]
    start_position: int = 0

    def about(self) -> dict[str, Any]:
        """The entry of "sequences" in case.json."""
        return {"name": self.name, "prompt_length": self.prompt_length,
                "tokens": int(self.tokens.size), "start_position": self.start_position}

    def tensors(self) -> dict[str, np.ndarray]:
        """Its tensors of golden.safetensors, by name."""
        flat = {"tokens": self.tokens, "logits": self.logits}
        for kind in ("hidden", "experts", "positions"):
            flat |= {f"{kind}.{layer}": value for layer, value in getattr(self, kind).items()}
        return {f"{self.name}.{key}":
                np.ascontiguousarray(value, dtype=_DTYPES[key.split(".")[0]])
                for key, value in flat.items()}


def smallest_gap(scores: np.ndarray, count: int) -> float:
    """Smallest gap between the last chosen and the first rejected candidate of any row.

    scores: [rows, N], −inf where there is no candidate; `count` of them are chosen. In units of
    the standard deviation over the row's candidates. Infinite if no row rejects anything; exact
    ties do not count.
    """
    smallest = math.inf
    for row in np.asarray(scores, dtype=np.float64):
        ordered = np.sort(row[np.isfinite(row)])[::-1]
        if ordered.size <= count or ordered[count - 1] == ordered[count]:
            continue
        smallest = min(smallest, float((ordered[count - 1] - ordered[count]) / ordered.std()))
    return smallest


def token_margin(recorded: Recorded) -> float:
    """Smallest lead of a greedy token over the runner-up, in σ of its row of logits."""
    behind = recorded.logits[recorded.prompt_length - 1:-1]
    return smallest_gap(behind, 1)


def largest_deviation(expected: np.ndarray, got: np.ndarray) -> float:
    """Largest |difference| in standard deviations of `expected`."""
    wide = np.asarray(expected, dtype=np.float64)
    return float(np.abs(wide - got).max() / wide.std())


def keeps_margins(margins: Mapping[str, float | None], narrow: bool) -> bool:
    """Whether {"experts", "positions"} are wide enough, or for a narrow case just so."""
    smallest = min((gap for gap in margins.values() if gap is not None), default=math.inf)
    return NARROW[0] <= smallest <= NARROW[1] if narrow else smallest >= MARGIN_MIN


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with a final line feed."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_golden(folder: Path, about: Mapping[str, Any], sequences: Sequence[Recorded]) -> None:
    """golden.safetensors and case.json; `about` holds the keys of case.json but "sequences"."""
    tensors: dict[str, np.ndarray] = {}
    for recorded in sequences:
        tensors |= recorded.tensors()
    save_file(tensors, folder / "golden.safetensors")
    write_json(folder / "case.json",
               {**about, "sequences": [recorded.about() for recorded in sequences]})


def read_golden(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """case.json and the tensors of golden.safetensors."""
    about = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    return about, load_file(folder / "golden.safetensors")


def replace_folder(aside: Path, target: Path) -> None:
    """Puts a finished folder where the older one, if any, was."""
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)


def write_index(directory: Path, seed: int) -> list[str]:
    """index.json of all finished cases in `directory`; returns their names."""
    names = sorted(path.parent.name for path in directory.glob("*/case.json")
                   if not path.parent.name.startswith("."))
    aside = directory / ".index.json"
    write_json(aside, {"format": FORMAT, "seed": seed, "cases": names})
    aside.rename(directory / "index.json")
    return names
