"""Goldens of the expertmesh family, computed with tools/reference (docs/model-family.md).

    python -m tools.golden.cases.expertmesh tests/parity/goldens [NAME …]

writes the folders of these cases (format: tests/parity/README.md) and leaves index.json alone.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tools.golden.goldenfile import Case
from tools.reference import checkpoint, presets
from tools.reference.decode import Decoded, greedy
from tools.reference.margins import RECORDS, float64_deviation, margins
from tools.reference.model import ExpertMesh
from tools.reference.weights import randomise

MARGIN_MIN = 2e-5         # σ, of experts and positions
TOKEN_MARGIN_MIN = 4e-4   # σ, of the two largest logits: twice the tolerance of the page
NARROW = (2e-5, 1e-4)     # where the smallest margin of the narrow case lies
FLOAT64_MAX = 2e-5        # σ
_KEPT = ("hidden", "experts", "positions", *RECORDS)

_SMALL = {
    "vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
    "qk_nope_head_dim": 12, "v_head_dim": 20, "q_lora_rank": 48, "kv_lora_rank": 16,
    "intermediate_size": 64, "n_routed_experts": 16, "num_experts_per_tok": 4,
    "moe_intermediate_size": 8, "engram_layer_ids": [1, 2], "engram_vocab_size": 100,
    "engram_num_classes": 64, "engram_head_dim": 8,
}


@dataclasses.dataclass(frozen=True)
class Spec:
    """One case: what it changes in the small model, and the shape of its sequence."""

    name: str
    why: str
    changes: dict[str, Any]
    prompt_length: int = 16
    steps: int = 64
    start_position: int = 0
    preset: dict[str, Any] | None = None  # instead of the small model
    dtype: torch.dtype = torch.bfloat16   # of the stored weights
    fp8_tables: bool = False
    narrow: bool = False                  # the smallest margin lies in NARROW


SPECS = (
    Spec("expertmesh_tiny", "the preset tiny: every mechanism at once", {}, preset={}),
    Spec("expertmesh_shared", "a context ten times index_topk, four of six layers with the "
         "selection of a layer below, two streams, no memory",
         {"num_hidden_layers": 6, "hc_mult": 2, "index_topk": 12, "engram_layer_ids": [],
          "indexer_types": ["full", "shared", "full", "shared", "shared", "shared"]},
         prompt_length=60),
    Spec("expertmesh_far", "positions 999,936 to 999,999: angles need float64",
         {"max_position_embeddings": 1048576, "rope_theta": 8e6}, prompt_length=32, steps=32,
         start_position=999_936),
    Spec("expertmesh_one_stream", "hc_mult 1: a plain residual, memory with one key block; "
         "weights stored in float32", {"hc_mult": 1}, dtype=torch.float32),
    Spec("expertmesh_no_memory", "no memory; the indexer's rope in half-split pairs",
         {"num_hidden_layers": 3, "engram_layer_ids": [], "indexer_rope_interleave": False}),
    Spec("expertmesh_dense_attention", "index_topk null: all positions, no indexer tensors; "
         "three streams", {"num_hidden_layers": 3, "hc_mult": 3, "index_topk": None}),
    Spec("expertmesh_narrow", "the smallest margin of a selection is below 1e-4 σ; rms_norm_eps "
         "far from 1e-6", {"rms_norm_eps": 1e-2}, narrow=True),
    Spec("expertmesh_tied", "tied embedding, no shared expert, two dense layers, two streams",
         {"hc_mult": 2, "tie_word_embeddings": True, "n_shared_experts": 0,
          "first_k_dense_replace": 2}),
    Spec("expertmesh_fp8_memory", "fp8 tables whose rows end within a group, 4-grams, memory in "
         "layer 0, no dense layer, two shared experts",
         {"num_hidden_layers": 3, "engram_head_dim": 40, "engram_max_ngram": 4,
          "engram_n_heads": 1, "engram_layer_ids": [0, 2], "first_k_dense_replace": 0,
          "n_shared_experts": 2}, fp8_tables=True),
    Spec("expertmesh_yarn", "rope_scaling yarn with m² in the softmax and a factor on cos and sin",
         {"num_hidden_layers": 3, "rope_scaling": {
             "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
             "beta_fast": 8.0, "beta_slow": 1.0, "mscale": 0.7, "mscale_all_dim": 1.0}}),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """A case that kept its margins."""

    seed: int
    model: ExpertMesh
    decoded: Decoded
    margins: dict[str, float | None]
    float64_deviation: float


def _build(spec: Spec, seed: int, folder: Path) -> ExpertMesh:
    """Random weights, written to `folder` and read back as they were rounded."""
    base = _SMALL if spec.preset is None else spec.preset
    config = presets.preset("tiny", **(base | spec.changes))
    model = randomise(checkpoint.new_model(config), seed)
    checkpoint.save(folder, model, spec.dtype, spec.fp8_tables)
    return checkpoint.load(folder)


def _attempt(spec: Spec, seed: int, folder: Path) -> Result:
    model = _build(spec, seed, folder)
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(0, model.config.vocab_size, (spec.prompt_length,), generator=generator)
    decoded = greedy(model, prompt.tolist(), spec.steps, spec.start_position, _KEPT)
    gaps = margins(decoded, model.config.num_experts_per_tok, model.config.index_topk)
    wide = float64_deviation(decoded, copy.deepcopy(model).double(), spec.start_position)
    return Result(seed, model, decoded, gaps, wide)


def _kept_margins(spec: Spec, result: Result) -> bool:
    chosen = [result.margins[kind] for kind in ("experts", "positions")
              if result.margins[kind] is not None]
    if min(chosen) < MARGIN_MIN or result.float64_deviation > FLOAT64_MAX:
        return False
    if (result.margins["tokens"] or 0.0) < TOKEN_MARGIN_MIN:
        return False
    return not spec.narrow or NARROW[0] <= min(chosen) <= NARROW[1]


def compute(spec: Spec, first_seed: int, folder: Path) -> Result:
    """The first seed that keeps the margins; its checkpoint is in `folder` afterwards."""
    for seed in range(first_seed, first_seed + 1000):
        result = _attempt(spec, seed, folder)
        if _kept_margins(spec, result):
            return result
    raise RuntimeError(f"{spec.name}: no seed keeps the margins")


def tensors(result: Result) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of golden.safetensors for the sequence s0."""
    decoded, config = result.decoded, result.model.config
    yield "s0.tokens", decoded.tokens.to(torch.int32)
    yield "s0.logits", decoded.logits
    for layer in range(config.num_hidden_layers):
        hidden = decoded.record("hidden", layer)
        yield f"s0.hidden.{layer}", hidden[:, 0] if config.hc_mult == 1 else hidden
        if not config.is_dense_ffn(layer):
            yield f"s0.experts.{layer}", decoded.record("experts", layer)
        if config.has_indexer(layer):
            yield f"s0.positions.{layer}", decoded.record("positions", layer)


def about(spec: Spec, result: Result) -> dict[str, Any]:
    """The contents of case.json."""
    return {
        "case": spec.name, "model_type": "expertmesh",
        "oracle": "tools/reference float32, written from docs/model-family.md",
        "seed": result.seed, "torch": str(torch.__version__), "numpy": np.__version__,
        "sequences": [{"name": "s0", "prompt_length": spec.prompt_length,
                       "tokens": spec.prompt_length + spec.steps,
                       "start_position": spec.start_position}],
        "streams": result.model.config.hc_mult, "why": spec.why,
        "margins": {kind: result.margins[kind] for kind in ("experts", "positions")},
        "token_margin": result.margins["tokens"],
        "float64_deviation": result.float64_deviation,
    }


def write(spec: Spec, first_seed: int, folder: Path) -> Result:
    """Computes one case and writes its folder."""
    result = compute(spec, first_seed, folder / "checkpoint")
    kept = {name: tensor.contiguous() for name, tensor in tensors(result)}
    save_file(kept, folder / "golden.safetensors")
    text = json.dumps(about(spec, result), indent=2, ensure_ascii=False) + "\n"
    (folder / "case.json").write_text(text, encoding="utf-8")
    return result


CASES = [Case(spec.name, functools.partial(write, spec)) for spec in SPECS]


def main() -> None:
    """Writes the cases asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for spec in SPECS:
        if not args.names or spec.name in args.names:
            result = write(spec, args.seed, args.folder / spec.name)
            print(f"{spec.name}: seed {result.seed}, margins {result.margins}, "
                  f"float64 {result.float64_deviation:.1e} σ", flush=True)


if __name__ == "__main__":
    main()
