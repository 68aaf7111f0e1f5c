"""`./mesh test`: the suites, and one closing line that counts their cases."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mesh import packages, venv
from mesh.build import PROCESSES, ROOT, binary, build, folder
from mesh.errors import MeshError

DEFAULT = ("tidy", "unit", "mesh", "fuzz")
OPENAI = ("openai==3.54.0",)
NOT_YET = ("parity", "fault", "sim", "deploy")


@dataclass
class Count:
    """Cases of a suite."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Count) -> None:
        """Adds another suite's cases."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def line(self) -> str:
        """`N passed, N failed`, and skipped ones if there are any."""
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares test."""
    parser = commands.add_parser(
        "test", help="build and test",
        description="Suites: " + ", ".join(SUITES) + ". Without a name: " + ", ".join(DEFAULT) + ".")
    parser.add_argument("suite", nargs="*", metavar="SUITE", help="which suites, in order")
    parser.add_argument("--filter", default="", metavar="REGEX", help="only test programs like this")
    parser.add_argument("--seconds", type=int, default=5, help="fuzz: seconds per target")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the suites and prints the count last."""
    wanted = args.suite or list(DEFAULT)
    for name in wanted:
        if name in NOT_YET:
            raise MeshError(f"suite {name} does not exist yet", 2)
        if name not in SUITES:
            raise MeshError(f"no suite {name}; there are: {', '.join(SUITES)}", 2)
    total = Count()
    for name in wanted:
        start = time.monotonic()
        count = SUITES[name](args)
        print(f"mesh test: {name}: {count.line()} in {time.monotonic() - start:.0f} s",
              file=sys.stderr, flush=True)
        total.add(count)
    sys.stderr.flush()
    print(total.line(), flush=True)
    return 0 if total.failed == 0 and total.passed > 0 else 1


def run_ctest(preset: str, label: str, args: argparse.Namespace, jobs: int) -> Count:
    """Runs the ctest entries of a label; counts GoogleTest cases, and crashes as failures."""
    reports = folder(preset) / "reports" / label
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    command = ["ctest", "--test-dir", str(folder(preset)), "-L", f"^{label}$",
               "--output-on-failure", "-j", str(jobs)]
    if args.filter:
        command += ["-R", args.filter]
    env = dict(os.environ, GTEST_OUTPUT=f"json:{reports}/", ASAN_OPTIONS="detect_leaks=1",
               UBSAN_OPTIONS="print_stacktrace=1")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as ctest:
        assert ctest.stdout is not None
        bad_programs = 0
        for line in ctest.stdout:
            print(line, end="", file=sys.stderr)
            bad_programs += bool(re.search(r"\*\*\*(Failed|Exception|Timeout|Not Run)", line))
    count = Count()
    for report in reports.glob("*.json"):
        data = json.loads(report.read_text())
        count.failed += data["failures"] + data.get("errors", 0)
        count.passed += data["tests"] - data["failures"] - data.get("disabled", 0)
    # A program that crashed, or never wrote a report, failed at least once.
    count.failed = max(count.failed, bad_programs)
    return count


def test_programs(preset: str, label: str) -> tuple[str, ...]:
    """Build targets of a label, as ctest knows them after configuring."""
    build(("em_base",), preset)
    listed = subprocess.run(["ctest", "--test-dir", str(folder(preset)), "-N", "-L", f"^{label}$"],
                            capture_output=True, text=True, check=True).stdout
    return tuple(re.findall(r"Test +#\d+: (\S+)", listed))


def unit(args: argparse.Namespace) -> Count:
    """Everything that needs no second process."""
    build((*test_programs("release", "unit"), *PROCESSES, "expertmesh"))
    return run_ctest("release", "unit", args, os.cpu_count() or 1)


def mesh(args: argparse.Namespace) -> Count:
    """Real processes on real sockets."""
    build((*test_programs("release", "mesh"), *PROCESSES, "expertmesh"))
    return run_ctest("release", "mesh", args, 1)


def tidy(_args: argparse.Namespace) -> Count:
    """Rules of the source tree; prints `rule: ok` or each violation."""
    if not (folder() / "compile_commands.json").exists():
        build(("em_base",))
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "tidy" / "tidy.py"),
                           "--build", str(folder())], check=False, capture_output=True, text=True)
    sys.stderr.write(done.stdout + done.stderr)
    passed = len(re.findall(r"^ok ", done.stdout, re.M))
    failed = len(re.findall(r"^FAILED ", done.stdout, re.M))
    return Count(passed, failed or int(done.returncode != 0))


def fuzz(args: argparse.Namespace) -> Count:
    """Each libFuzzer target for some seconds, from the committed corpus."""
    build(("fuzz_targets",), "fuzz", packages.FUZZ)
    count = Count()
    for target in sorted((folder("fuzz") / "bin").glob("fuzz_*")):
        corpus = ROOT / "tests" / "fuzz" / "corpus" / target.name.removeprefix("fuzz_")
        found = folder("fuzz") / "found" / target.name
        found.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [str(target), f"-max_total_time={args.seconds}", "-timeout=10", "-rss_limit_mb=4096",
             "-print_final_stats=0", "-verbosity=0", f"-artifact_prefix={found}/", str(found),
             str(corpus)], check=False, capture_output=True, text=True)
        good = done.returncode == 0
        print(f"mesh test: {target.name}: {'ok' if good else 'FAILED'}", file=sys.stderr)
        if not good:
            sys.stderr.write(done.stderr[-4000:])
        count.add(Count(passed=int(good), failed=int(not good)))
    return count


def sanitize(args: argparse.Namespace) -> Count:
    """Unit and mesh suites under AddressSanitizer and UndefinedBehaviorSanitizer."""
    preset = "asan-ubsan"
    programs = test_programs(preset, "unit") + test_programs(preset, "mesh")
    build((*programs, *PROCESSES, "expertmesh"), preset)
    count = run_ctest(preset, "unit", args, os.cpu_count() or 1)
    count.add(run_ctest(preset, "mesh", args, 1))
    return count


def tsan(args: argparse.Namespace) -> Count:
    """What does not link gRPC, under ThreadSanitizer."""
    build(test_programs("tsan", "unit"), "tsan")
    return run_ctest("tsan", "unit", args, os.cpu_count() or 1)


def script(path: Path, python: Path) -> Count:
    """A Python driver that ends with `N passed, N failed`."""
    with subprocess.Popen([str(python), str(path)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        last = ""
        for line in driver.stdout:
            print(line, end="", file=sys.stderr)
            last = line
    found = re.match(r"(\d+) passed, (\d+) failed", last)
    if not found or (driver.returncode != 0 and found[2] == "0"):
        return Count(failed=1)
    return Count(int(found[1]), int(found[2]))


def conformance(_args: argparse.Namespace) -> Count:
    """The PyPI openai client against a mesh of its own."""
    build((*PROCESSES, "expertmesh"))
    bin_folder = venv.ensure("conformance", OPENAI)
    return script(ROOT / "tests" / "conformance" / "run.py", bin_folder / "python")


def memory(_args: argparse.Namespace) -> Count:
    """Memory of an expert worker with a quarter of bench-1b."""
    build((*PROCESSES, "expertmesh"))
    assert binary("expertmesh").exists()
    return script(ROOT / "tests" / "memory" / "run.py", Path(sys.executable))


SUITES: dict[str, Callable[[argparse.Namespace], Count]] = {
    "tidy": tidy, "unit": unit, "mesh": mesh, "fuzz": fuzz, "conformance": conformance,
    "memory": memory, "sanitize": sanitize, "tsan": tsan,
}
