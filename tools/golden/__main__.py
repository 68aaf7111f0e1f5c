"""Writes goldens: python -m tools.golden --out DIR [--seed N] [--case NAME …] [--list]."""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what follows needs the packages that check_version asks for
    from .goldenfile import Case

TRANSFORMERS = "5.23.0"


def check_version() -> str | None:
    """What is wrong with the installed transformers, if anything."""
    try:
        found = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found == TRANSFORMERS:
        return None
    return (f"tools.golden needs transformers {TRANSFORMERS}, found {found}: "
            "pip install -r tools/requirements.txt")


def write_case(case: Case, seed: int, out: Path) -> None:
    """Writes one case aside and puts it in place."""
    from . import goldenfile
    began = time.monotonic()
    aside = out / f".{case.name}.part"
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    case.write(seed * goldenfile.SEEDS_PER_RUN, aside)
    size = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
    goldenfile.replace_folder(aside, out / case.name)
    about, _ = goldenfile.read_golden(out / case.name)
    gaps = {kind: gap if gap is None else f"{gap:.1e}" for kind, gap in about["margins"].items()}
    print(f"{case.name}: seed {about['seed']}, experts {gaps['experts']} σ, positions "
          f"{gaps['positions']} σ, float64 {about['float64_deviation']:.1e} σ, "
          f"{size / 1e6:.2f} MB, {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    """The command; 1 if something cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m tools.golden", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="other weights and prompts")
    parser.add_argument("--case", action="append", default=[], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    args = parser.parse_args()
    wrong = check_version()
    if wrong:
        print(wrong, file=sys.stderr)
        return 1
    from . import goldenfile
    from .cases import all_cases
    cases = all_cases()
    if args.list:
        for case in cases:
            print(case.name)
        return 0
    unknown = sorted(set(args.case) - {case.name for case in cases})
    if unknown or args.out is None or args.seed < 0:
        parser.error(f"no such case: {unknown}" if unknown else "--out DIR, and --seed 0 or more")
    for case in cases:
        if case.name in args.case or not args.case:
            write_case(case, args.seed, args.out)
    names = goldenfile.write_index(args.out, args.seed)
    print(f"{args.out / 'index.json'}: {len(names)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
