"""`./mesh lint`: buf, clang-format, clang-tidy."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mesh import packages, venv
from mesh.build import ROOT, build, folder

BUF = ("buf-bin==1.75.0",)


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares lint."""
    parser = commands.add_parser(
        "lint", help="check protos and sources",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="buf STANDARD and COMMENTS on proto/, clang-format on all sources, clang-tidy\n"
                    "on those that differ from HEAD (or all).",
        epilog="examples:\n  ./mesh lint\n  ./mesh lint --fix      let clang-format rewrite files\n"
               "  ./mesh lint --all      clang-tidy on everything: slow")
    parser.add_argument("--all", action="store_true", help="clang-tidy on every source")
    parser.add_argument("--fix", action="store_true", help="let clang-format rewrite files")
    parser.set_defaults(run=run)


def sources() -> list[str]:
    """Tracked and new C++ files of ours."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.cc", "*.h"],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [name for name in listed
            if (ROOT / name).exists() and not name.startswith("third_party/")]


def changed() -> list[str]:
    """Sources that differ from HEAD, new ones too."""
    listed: list[str] = []
    for command in (["git", "diff", "--name-only", "HEAD", "--", "*.cc"],
                    ["git", "ls-files", "--others", "--exclude-standard", "*.cc"]):
        listed += subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                                 check=True).stdout.split()
    return [name for name in listed if name in sources()]


def step(name: str, command: list[str]) -> bool:
    """Runs one check and says how it went."""
    done = subprocess.run(command, cwd=ROOT, check=False)
    print(f"mesh lint: {name}: {'ok' if done.returncode == 0 else 'FAILED'}", file=sys.stderr)
    return done.returncode == 0


def tidy(files: list[str]) -> bool:
    """clang-tidy over files, one process per core."""
    build(("em_proto",))
    database = folder()

    def one(name: str) -> bool:
        done = subprocess.run(["clang-tidy-14", "-p", str(database), "--quiet", name], cwd=ROOT,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.stderr.write(done.stdout)
        return done.returncode == 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        good = all(list(pool.map(one, files)))
    print(f"mesh lint: clang-tidy on {len(files)} files: {'ok' if good else 'FAILED'}",
          file=sys.stderr)
    return good


def run(args: argparse.Namespace) -> int:
    """All checks; 0 if all are clean."""
    packages.ensure(packages.LINT)
    buf = venv.ensure("lint", BUF) / "buf"
    good = step("buf lint", [str(buf), "lint"])
    good &= step("buf format", [str(buf), "format", "proto", "-d", "--exit-code"])
    how = ["-i"] if args.fix else ["--dry-run", "--Werror"]
    good &= step("clang-format", ["clang-format-14", *how, *sources()])
    listed = [f for f in sources() if f.endswith(".cc") and not Path(f).match("*kernels/cpu/*")]
    good &= tidy(listed if args.all else changed())
    return 0 if good else 1
