"""Command line of the reference: `python -m tools.reference counts | init | decode`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from . import checkpoint, counts, presets
from .decode import greedy
from .weights import randomise


def _counts() -> None:
    for name in presets.NAMES:
        config = presets.preset(name)
        own = counts.count(config)
        print(name)
        rows = dataclasses.asdict(own) | {
            "total": own.total, "active": counts.active(config),
            "P_sparse": counts.sparse_parameters(config),
            "KV elements per token": counts.kv_elements(config)}
        for row, value in rows.items():
            print(f"  {row:<24}{value:>20,}")
        print(f"  {'Engram share':<24}{counts.engram_share(config):>20.1%}")


def _init(args: argparse.Namespace) -> None:
    model = randomise(checkpoint.new_model(presets.preset(args.preset)), args.seed)
    dtype = torch.bfloat16 if args.bfloat16 else torch.float32
    checkpoint.save(args.folder, model, dtype, args.fp8_tables)


def _decode(args: argparse.Namespace) -> None:
    decoded = greedy(checkpoint.load(args.folder), args.tokens, args.steps, args.start_position)
    print(*decoded.tokens.tolist())


def main() -> None:
    """Parses the command line and runs one command."""
    parser = argparse.ArgumentParser(prog="tools.reference", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("counts", help="print the parameter table of all presets")
    init = commands.add_parser("init", help="write a checkpoint with random weights")
    init.add_argument("preset", choices=("tiny", "demo", "bench-1b-full"))
    init.add_argument("folder", type=Path)
    init.add_argument("--seed", type=int, default=0)
    init.add_argument("--bfloat16", action="store_true", help="instead of float32")
    init.add_argument("--fp8-tables", action="store_true", help="Engram tables in fp8")
    decode = commands.add_parser("decode", help="decode greedily after a prompt of token ids")
    decode.add_argument("folder", type=Path)
    decode.add_argument("tokens", type=int, nargs="+")
    decode.add_argument("--steps", type=int, default=16)
    decode.add_argument("--start-position", type=int, default=0)
    args = parser.parse_args()
    if args.command == "counts":
        _counts()
    elif args.command == "init":
        _init(args)
    else:
        _decode(args)


if __name__ == "__main__":
    main()
