"""`./mesh bench`: figures as ratios against a peer or a floor of the same run."""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from mesh import arguments, bench_context, bench_decode, bench_logits, bench_serve, model
from mesh.bench_run import QUICK_ROUNDS, ROUNDS, Options, say, use_cores
from mesh.build import PROCESSES, ROOT, binary, build
from mesh.errors import MeshError
from mesh.suites import tokenizer_parity

MODELS = {"engram": ("bench-1b-full",)}  # presets that a program wants as arguments
TOOLS = ("expertmesh-bench-client", "expertmesh-bench-model", "expertmesh-bench-floor")
HARNESS: dict[str, Callable[[Options], None]] = {
    "decode": bench_decode.decode, "lanes": bench_decode.lanes, "prefill": bench_decode.prefill,
    "mesh-tax": bench_decode.mesh_tax, "prefix": bench_serve.prefix, "start": bench_serve.start,
    "context": bench_context.context, "trace": bench_serve.trace, "logits": bench_logits.logits,
}
# What `all` runs; with --quick without those that take long whatever they are told.
ORDER = ("context", "mesh-tax", "prefix", "start", "decode", "prefill", "lanes", "trace",
         "logits")
SLOW = ("lanes",)
EXAMPLES = """examples:
  ./mesh bench                                 what there is
  ./mesh bench decode --quick                  fewer lanes, steps and rounds
  ./mesh bench decode --lanes 1,16 --rounds 9
  ./mesh bench mesh-tax --transport grpc,shm
  ./mesh bench trace --file requests.jsonl
  ./mesh bench all --quick                     a look at everything, in minutes
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares bench."""
    parser = commands.add_parser(
        "bench", help="run a benchmark", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Without a name: lists the benchmarks there are. Each prints a table and a\n"
                    "JSON line, which also goes to build/bench/NAME.json (docs/benchmarks.md).",
        epilog=EXAMPLES)
    parser.add_argument("name", nargs="?", help="which one, or all")
    parser.add_argument("--quick", action="store_true", help="a fast look: small and few runs")
    parser.add_argument("--rounds", type=arguments.count, metavar="N",
                        help=f"alternated runs (default: {ROUNDS}, with --quick {QUICK_ROUNDS})")
    parser.add_argument("--profile", default="bf16", help="arithmetic (default: bf16)")
    parser.add_argument("--model", type=Path, metavar="DIR",
                        help="instead of the preset; for --profile int8 one stored as int8")
    parser.add_argument("--transport", default="grpc", metavar="T,T",
                        help="between our processes (default: grpc)")
    parser.add_argument("--lanes", type=numbers, default=(), metavar="N,N", help="decode, mesh-tax")
    parser.add_argument("--lengths", type=numbers, default=(), metavar="N,N", help="context")
    parser.add_argument("--threads", type=numbers, default=(2, 2), metavar="A,E",
                        help="of the attention worker and of each expert worker (default: 2,2); "
                             "a process with everything in it has A")
    parser.add_argument("--cores", type=numbers, default=(), metavar="N,N",
                        help="for all processes of both sides (default: the first two)")
    parser.add_argument("--file", type=Path, help="trace: the requests")
    parser.add_argument("--no-peer", action="store_true", help="ours alone: no ratio to the peer")
    parser.add_argument("--peer-settings", choices=("best", "default"), default="best",
                        help="try all of the peer's settings, or take the usual ones")
    parser.add_argument("--no-build", action="store_true", help="use the programs as they are")
    parser.set_defaults(run=run)


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 0, separated by commas."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise argparse.ArgumentTypeError("must be numbers with commas between them")
    return tuple(map(int, parts))


def programs() -> list[str]:
    """Benchmarks that are programs of their own: tests/bench/NAME_bench.cc."""
    return sorted(path.name.removesuffix("_bench.cc")
                  for path in (ROOT / "tests" / "bench").glob("*_bench.cc"))


def options_of(args: argparse.Namespace) -> Options:
    """Checks what argparse does not."""
    if len(args.threads) != 2 or 0 in args.threads:
        raise MeshError("--threads: two numbers, e.g. 1,1", 2)
    if 0 in args.lanes or 0 in args.lengths:
        raise MeshError("--lanes and --lengths: at least 1", 2)
    return Options(quick=args.quick, rounds=args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS),
                   profile=args.profile, model=args.model,
                   transports=tuple(args.transport.split(",")), lanes=args.lanes,
                   lengths=args.lengths, cores=use_cores(args.cores), threads=args.threads,
                   peer=not args.no_peer, peer_settings=args.peer_settings, file=args.file)


def run(args: argparse.Namespace) -> int:
    """Lists or runs."""
    names = sorted({*HARNESS, *programs(), "tokenizer", "all"})
    if args.name is None:
        print("benchmarks:", " ".join(names))
        return 0
    if args.name not in names:
        raise MeshError(f"no benchmark {args.name}; there are: {' '.join(names)}", 2)
    options = options_of(args)
    if args.name == "all":
        return run_all(args, options)
    return run_one(args.name, args, options)


def run_all(args: argparse.Namespace, options: Options) -> int:
    """One after another; one that fails does not keep the others from running."""
    failed = []
    for name in ORDER:
        if (args.quick and name in SLOW) or (args.no_peer and name == "logits"):
            continue
        begin = time.monotonic()
        print(f"\n== {name}", flush=True)
        try:
            code = run_one(name, args, options)
        except MeshError as error:
            say(f"{name}: {error}")
            code = 1
        if code != 0:
            failed.append(name)
        say(f"{name}: {time.monotonic() - begin:.0f} s")
    if failed:
        say(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


def run_one(name: str, args: argparse.Namespace, options: Options) -> int:
    """Builds what it needs and runs it."""
    if name == "tokenizer":
        return 1 if tokenizer_parity("--speed").failed else 0
    if name in HARNESS:
        if not args.no_build:
            build((*PROCESSES, *TOOLS, "expertmesh"))
        HARNESS[name](options)
        return 0
    target = f"{name}_bench"
    if not args.no_build:
        build((target, "expertmesh"))
    models = [str(options.model or model.preset(preset)) for preset in MODELS.get(name, ())]
    return subprocess.run([str(binary(target)), *models], check=False,
                          env=dict(os.environ)).returncode
