"""`./mesh bench`: runs a benchmark of tests/bench."""

from __future__ import annotations

import argparse
import subprocess

from mesh import model
from mesh.build import ROOT, binary, build
from mesh.errors import MeshError
from mesh.suites import tokenizer_parity

MODELS = {"engram": ("bench-1b-full",)}  # presets that a benchmark wants as arguments
TOKENIZER = "tokenizer"  # a script: its peer is a Python package


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares bench."""
    parser = commands.add_parser(
        "bench", help="run a benchmark", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Without a name: lists the benchmarks there are.",
        epilog="examples:\n  ./mesh bench\n  ./mesh bench NAME")
    parser.add_argument("name", nargs="?", help="which one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Lists or runs."""
    names = sorted([TOKENIZER] + [path.name.removesuffix("_bench.cc") for path in
                                  (ROOT / "tests" / "bench").glob("*_bench.cc")])
    if args.name is None:
        print("benchmarks:", " ".join(names) or "none yet")
        return 0
    if args.name not in names:
        raise MeshError(f"no benchmark {args.name}; there are: {' '.join(names) or 'none yet'}", 2)
    if args.name == TOKENIZER:
        return 1 if tokenizer_parity("--speed").failed else 0
    target = f"{args.name}_bench"
    build((target, "expertmesh"))
    models = [str(model.preset(name)) for name in MODELS.get(args.name, ())]
    return subprocess.run([str(binary(target)), *models], check=False).returncode
