"""What every benchmark of `./mesh bench` shares: options, workloads, alternated runs, reports."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh import model
from mesh.build import ROOT, binary
from mesh.errors import MeshError

RESULTS = ROOT / "build" / "bench"
ROUNDS = 5
QUICK_ROUNDS = 1
WARM_UP = -1  # number of the round that is not counted
PROMPT, STEPS = 128, 128
QUICK_PROMPT, QUICK_STEPS = 32, 24

Request = tuple[float, int, list[int], list[int]]  # at_ms, max_tokens, prompt, forced
Pace = tuple[int, float]  # tokens, seconds


@dataclass
class Options:
    """The flags of one run."""

    quick: bool = False
    rounds: int = ROUNDS
    profile: str = "bf16"
    model: Path | None = None  # none: the preset of the benchmark
    transports: tuple[str, ...] = ("grpc",)
    lanes: tuple[int, ...] = ()  # none: those of the benchmark
    cores: tuple[int, ...] = ()
    threads: tuple[int, int] = (2, 2)  # of the attention worker, of each expert worker
    peer: bool = True
    peer_settings: str = "best"
    file: Path | None = None
    lengths: tuple[int, ...] = ()

    @property
    def prompt(self) -> int:
        return QUICK_PROMPT if self.quick else PROMPT

    @property
    def steps(self) -> int:
        return QUICK_STEPS if self.quick else STEPS

    def directory(self, preset: str = "bench-1b") -> Path:
        """The model to measure."""
        return (self.model or model.preset(preset)).resolve()


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"mesh bench: {text}", file=sys.stderr, flush=True)


def use_cores(wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Binds this process, and so every process of either side, to the same two cores."""
    have = sorted(os.sched_getaffinity(0))
    cores = wanted or tuple(have[:2])
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise MeshError(f"--cores {','.join(map(str, cores))}: {error.strerror}") from None
    return cores


def random_lanes(vocab: int, lanes: int, prompt: int, steps: int, seed: int) -> list[Request]:
    """Lanes of their own random tokens, all due at once; the same for the same seed."""
    requests = []
    for lane in range(lanes):
        draw = random.Random(f"{seed}/{lane}")
        ids = [draw.randrange(vocab) for _ in range(prompt + steps)]
        requests.append((0.0, steps, ids[:prompt], ids[prompt:]))
    return requests


def write_requests(path: Path, requests: list[Request]) -> Path:
    """The file that expertmesh-bench-client and expertmesh-bench-model read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as out:
        for at_ms, most, prompt, forced in requests:
            words = [f"{at_ms:.3f}", most, len(prompt), *prompt, len(forced), *forced]
            out.write(" ".join(map(str, words)) + "\n")
    return path


def decode_pace(answers: list[dict[str, Any]]) -> Pace:
    """What came while every lane decoded: from the last first token to the first last one."""
    begin = max(answer["token_ms"][0] for answer in answers)
    end = min(answer["token_ms"][-1] for answer in answers)
    tokens = sum(begin < at <= end for answer in answers for at in answer["token_ms"])
    if end <= begin or tokens < len(answers):
        raise MeshError("no time in which all lanes decode: take more steps or fewer lanes")
    return tokens, (end - begin) / 1e3


def decode_rate(answers: list[dict[str, Any]]) -> float:
    """Tokens a second while every lane decodes."""
    tokens, seconds = decode_pace(answers)
    return tokens / seconds


def time_to_first_token_s(answer: dict[str, Any]) -> float:
    """Seconds from sending to the first token."""
    return (answer["token_ms"][0] - answer["sent_ms"]) / 1e3


def alternate(sides: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    """Runs every side once a round, each time in the next order; each gets the round's number."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in in_turn(sides, number):
            figures[name].append(sides[name](number))
            say(f"round {number + 1} of {rounds}: {name} {figures[name][-1]:.4g}")
    return figures


def interleave_anew(start: Callable[[ExitStack], Mapping[str, Callable[[int, int], Pace]]],
                    rounds: int, pieces: int) -> dict[str, list[float]]:
    """Tokens a second of sides that are started for every round, as two starts of the same
    processes differ by more than two rounds of one start, and that take turns at every piece of it,
    as a machine's memory changes its speed within a round. A side gets the numbers of round and
    piece; each has a piece that does not count first."""
    figures: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        with ExitStack() as stack:
            sides = start(stack)
            paces: dict[str, list[Pace]] = {name: [] for name in sides}
            for side in sides.values():
                side(WARM_UP, 0)
            for piece in range(pieces):
                for name in in_turn(sides, number + piece):
                    paces[name].append(sides[name](number, piece))
        for name, pace in paces.items():
            tokens, seconds = (sum(column) for column in zip(*pace, strict=True))
            figures[name].append(tokens / seconds)
            say(f"round {number + 1} of {rounds}: {name} {figures[name][-1]:.4g}")
    return figures


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """The names, beginning with the next one each time: none of them follows itself."""
    ordered = list(names)
    first = number % len(ordered)
    return ordered[first:] + ordered[:first]


def ratio(figures: dict[str, list[float]], ours: str, theirs: str) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(figures[ours], figures[theirs], strict=True))


def tool(name: str, *arguments: str) -> list[dict[str, Any]]:
    """JSON lines of a built program."""
    done = subprocess.run([str(binary(name)), *arguments], check=False, text=True,
                          stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise MeshError(f"{name} ended with code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def floor(options: Options) -> float:
    """Bytes a second that the cores read at present."""
    found = tool("expertmesh-bench-floor", str(len(os.sched_getaffinity(0))),
                 *(("64", "5") if options.quick else ()))
    return float(found[0]["stream_read_gb_s"]) * 1e9


def pss_bytes(pids: list[int]) -> int:
    """Memory of processes, shared pages by their share."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


@dataclass
class Report:
    """A table for people and one JSON line for programs."""

    name: str
    options: Options
    limits: str = ""  # what the figures should reach
    rows: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    def add(self, **columns: Any) -> None:
        """One row."""
        self.rows.append(columns)

    def finish(self) -> None:
        """Prints both; the line also goes to build/bench/NAME.json."""
        whole = {"bench": self.name, "profile": self.options.profile,
                 "rounds": self.options.rounds, "quick": self.options.quick,
                 "cores": len(os.sched_getaffinity(0)),
                 "load": [round(self.load_before, 2), round(os.getloadavg()[0], 2)],
                 "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                 **self.facts, "rows": self.rows}
        print(table(self.rows))
        for name, value in self.facts.items():
            print(f"{name}: {show(value)}")
        if self.limits:
            print(f"limits: {self.limits}")
        line = json.dumps(whole)
        print(line, flush=True)
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{self.name}.json").write_text(line + "\n")


def show(value: Any) -> str:
    """A cell."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0f}"
    return "-" if value is None else str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """Columns of all rows, in the order in which they first come."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [[show(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
                     for line in cells)
