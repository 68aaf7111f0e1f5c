"""Makes one golden of a published family: seeds are tried until the margins are kept."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import checkpoint, goldenfile, oracle
from .checkpoint import Config
from .goldenfile import Case, Recorded
from .page import Page, Trace, smallest_margins

SEEDS_MAX = 600
PREFILL_MAX = 1e-5          # σ, decode steps against one prefill of the same tokens
FLOAT64_MAX = 2e-5          # σ, the class against the page in float64
LOGITS_SIGMA = (0.3, 30.0)  # a sensible spread
DISTINCT_TOKENS_MIN = 8     # among the decoded ones


class Unfit(Exception):
    """This seed does not do; the text says why."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """One case: a config.json, how its weights are drawn and stored, and its sequences."""

    name: str
    why: str
    config: Config
    sequences: tuple[tuple[int, int], ...] = ((40, 64),)  # (prompt, decode steps)
    dtype: torch.dtype = torch.bfloat16
    gate_bias: float = 0.0
    embedding_scale: float = 1.0
    sharded: bool = False               # shards, mixed dtypes, shuffled tensors
    narrow: bool = False                # the smallest margin lies in goldenfile.NARROW
    group_rule_matters: bool = False    # −inf and 0.0 for excluded groups differ
    zero_masks_groups: bool = False     # the gates are replaced: 0.0


@dataclasses.dataclass
class _Result:
    sequences: list[Recorded]
    margins: dict[str, float | None]
    token_margin: float
    prefill_deviation: float
    float64_deviation: float


def random_numbers(spec: Spec, seed: int) -> np.random.Generator:
    """The source of everything random in one attempt."""
    return np.random.default_rng([seed, zlib.crc32(spec.name.encode())])


def make_checkpoint(spec: Spec, rng: np.random.Generator, folder: Path) -> checkpoint.Tensors:
    """Draws and writes the weights; returns them as stored."""
    tensors = checkpoint.randomise(spec.config, rng, spec.dtype, gate_bias=spec.gate_bias,
                                   embedding_scale=spec.embedding_scale)
    if spec.sharded:
        tensors = checkpoint.mix_dtypes(tensors, rng)
        checkpoint.write_sharded(folder, spec.config, tensors, rng)
    else:
        checkpoint.write_plain(folder, spec.config, tensors)
    return tensors


def _same_selections(recorded: Recorded, trace: Trace) -> bool:
    return (recorded.experts.keys() == trace.experts.keys()
            and recorded.positions.keys() == trace.positions.keys()
            and all(np.array_equal(recorded.experts[i], trace.experts[i]) for i in trace.experts)
            and all(np.array_equal(recorded.positions[i], trace.positions[i])
                    for i in trace.positions))


def _deviation(recorded: Recorded, trace: Trace) -> float:
    hidden = [goldenfile.largest_deviation(trace.hidden[i], recorded.hidden[i])
              for i in trace.hidden]
    return max(goldenfile.largest_deviation(trace.logits, recorded.logits), *hidden)


def _check(spec: Spec, result: _Result, group_rule_matters: bool) -> None:
    """Unfit if the seed does not do."""
    spread = [float(item.logits.std()) for item in result.sequences]
    first = result.sequences[0]
    distinct = len(set(first.tokens[first.prompt_length:].tolist()))
    for fits, text in (
            (goldenfile.keeps_margins(result.margins, spec.narrow), f"margins {result.margins}"),
            (result.token_margin >= goldenfile.TOKEN_MARGIN_MIN,
             f"tokens lead by {result.token_margin:.1e} σ"),
            (result.float64_deviation <= FLOAT64_MAX,
             f"float64 differs by {result.float64_deviation:.1e} σ"),
            (result.prefill_deviation <= PREFILL_MAX,
             f"a prefill differs by {result.prefill_deviation:.1e} σ"),
            (group_rule_matters == spec.group_rule_matters, "the rule for excluded groups"),
            (min(spread) >= LOGITS_SIGMA[0] and max(spread) <= LOGITS_SIGMA[1],
             f"logits spread by {spread}"),
            (distinct >= DISTINCT_TOKENS_MIN, f"{distinct} distinct tokens")):
        if not fits:
            raise Unfit(text)


def attempt(spec: Spec, seed: int, folder: Path) -> _Result:
    """One seed: weights, prompts, the class's run, and the page's in float64."""
    rng = random_numbers(spec, seed)
    tensors = make_checkpoint(spec, rng, folder)
    model = oracle.load(folder)
    if spec.zero_masks_groups:
        oracle.mask_groups_with_zero(model)
    page = Page(spec.config, tensors, spec.zero_masks_groups)
    sequences, gaps, prefill, wide, matters = [], [], [], [], False
    for number, (length, steps) in enumerate(spec.sequences):
        prompt = rng.integers(0, spec.config["vocab_size"], length)
        recorded = oracle.decode(model, f"s{number}", prompt, steps)
        trace = page.forward(recorded.tokens)
        if not _same_selections(recorded, trace):
            raise Unfit("float64 selects otherwise")
        again = oracle.prefill_logits(model, recorded.tokens)
        sequences.append(recorded)
        gaps.append(smallest_margins(trace, spec.config, goldenfile.smallest_gap))
        prefill.append(goldenfile.largest_deviation(recorded.logits, again))
        wide.append(_deviation(recorded, trace))
        matters = matters or trace.group_rule_matters
    margins = {kind: min((gap[kind] for gap in gaps if gap[kind] is not None), default=None)
               for kind in ("experts", "positions")}
    tokens = min(goldenfile.token_margin(item) for item in sequences)
    result = _Result(sequences, margins, tokens, max(prefill), max(wide))
    _check(spec, result, matters)
    return result


def about(spec: Spec, seed: int, result: _Result) -> dict[str, Any]:
    """The keys of case.json but "sequences"."""
    architecture = spec.config["architectures"][0]
    changed = ", gates replaced: excluded groups 0.0" if spec.zero_masks_groups else ""
    keys = {
        "case": spec.name, "model_type": spec.config["model_type"],
        "oracle": f"transformers {oracle.transformers.__version__} {architecture} eager "
                  f"float32{changed}",
        "seed": seed, "torch": str(torch.__version__), "numpy": np.__version__,
        "streams": 1, "why": spec.why, "margins": result.margins,
        "token_margin": result.token_margin,
        "prefill_deviation": result.prefill_deviation,
        "float64_deviation": result.float64_deviation,
    }
    if spec.zero_masks_groups:
        keys["masked_gate_group_zero"] = True
    return keys


def write(spec: Spec, first_seed: int, folder: Path) -> None:
    """Computes the case with the first seed that does, into `folder`."""
    torch.set_num_threads(1)
    why = ""
    for seed in range(first_seed, first_seed + SEEDS_MAX):
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        try:
            result = attempt(spec, seed, folder / "checkpoint")
        except Unfit as unfit:
            why = str(unfit)
            print(f"{spec.name}: not seed {seed}: {why}", flush=True)
            continue
        goldenfile.write_golden(folder, about(spec, seed, result), result.sequences)
        return
    raise RuntimeError(f"{spec.name}: no seed does; the last: {why}")


def cases(specs: tuple[Spec, ...]) -> list[Case]:
    """The registry's entries of `specs`."""
    return [Case(spec.name, functools.partial(write, spec)) for spec in specs]
