"""`./mesh bench prefix|start|trace`: what the whole mesh does for its clients."""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mesh import bench_peer, model
from mesh.bench_run import (
    Options,
    Report,
    Request,
    alternate,
    random_lanes,
    ratio,
    say,
    time_to_first_token_s,
)
from mesh.bench_sides import Mesh, Peer
from mesh.build import ROOT
from mesh.errors import MeshError

TRACE = ROOT / "tests" / "bench" / "data" / "conversation_trace_1000.jsonl"
BLOCK_TOKENS = 512  # of a hash id in the trace
PAGE_TOKENS = 64  # what the prefix cache shares
REQUESTS, QUICK_REQUESTS = 1000, 16
PREFIX_TOKENS, TAIL_TOKENS = 2048, 16


def ids(vocab: int, count: int, seed: str) -> list[int]:
    """Random token ids, the same for the same seed."""
    draw = random.Random(seed)
    return [draw.randrange(vocab) for _ in range(count)]


def prefix(options: Options) -> None:
    """Time to the first token behind a prefix that an earlier prompt had, over a new one."""
    directory = options.directory()
    vocab = int(model.show(directory)["vocab_size"])
    length = 256 if options.quick else PREFIX_TOKENS
    report = Report("prefix", options, "prefix 2048, tail 16: warm / cold <= 0.06")

    def first_token_s(mesh: Mesh, number: int, tail: str) -> float:
        prompt = ids(vocab, length, f"{number}") + ids(vocab, TAIL_TOKENS, f"{number}/{tail}")
        return time_to_first_token_s(mesh.play([(0.0, 1, prompt, [])], bypass_cache=False)[0])

    for transport in options.transports:
        cold, warm = [], []
        with Mesh(transport, options, directory, transport) as mesh:
            first_token_s(mesh, -1, "warm-up")
            for number in range(options.rounds):
                cold.append(first_token_s(mesh, number, "cold"))
                warm.append(first_token_s(mesh, number, "warm"))
                say(f"round {number + 1} of {options.rounds}: cold {cold[-1]:.4g} s, "
                    f"warm {warm[-1]:.4g} s")
        report.add(transport=transport, prefix=length, tail=TAIL_TOKENS,
                   cold_s=statistics.median(cold), warm_s=statistics.median(warm),
                   **{"warm/cold": ratio({"warm": warm, "cold": cold}, "warm", "cold")})
    report.finish()


def start(options: Options) -> None:
    """From nothing running to the first token, with the files in the page cache."""
    directory = options.directory()
    vocab = int(model.show(directory)["vocab_size"])
    request = random_lanes(vocab, 1, 16, 2, 1)
    report = Report("start", options, "second start to first token <= 1.5 of the peer's")

    def ours(_: int) -> float:
        begin = time.monotonic()
        with Mesh("start", options, directory, options.transports[0], gateway=True) as mesh:
            mesh.play(request)
            return time.monotonic() - begin

    def theirs(_: int) -> float:
        begin = time.monotonic()
        with Peer(options, gguf, bench_peer.QUICK_SETTINGS[0]) as peer:
            peer.open(1, 64)
            peer.play(request)
            return time.monotonic() - begin

    sides = {"mesh": ours}
    if options.peer:
        gguf = bench_peer.gguf(directory, options.profile)
        sides["peer"] = theirs
    for side in sides.values():
        side(-1)  # fills the page cache and whatever a first start makes
    figures = alternate(sides, options.rounds)
    row = {f"{name}_s": statistics.median(times) for name, times in figures.items()}
    if options.peer:
        row["mesh/peer"] = ratio(figures, "mesh", "peer")
    report.facts["peer"] = f"{bench_peer.NAME} under Python: the wheel has no llama-server"
    report.add(**row)
    report.finish()


def read_trace(path: Path, count: int) -> list[dict[str, Any]]:
    """The first `count` requests."""
    if not path.exists():
        raise MeshError(f"--file {path}: there is no such file")
    found = []
    with path.open() as lines:
        for line in lines:
            if len(found) == count:
                break
            try:
                one = json.loads(line)
                found.append({key: one[key] for key in ("timestamp", "input_length",
                                                        "output_length", "hash_ids")})
            except (ValueError, KeyError) as error:
                raise MeshError(f"{path}: line {len(found) + 1} is no request: {error}") from None
    if not found:
        raise MeshError(f"{path}: it has no requests")
    return found


def sharing(trace: list[dict[str, Any]], count: int, blocks: int) -> list[dict[str, Any]]:
    """The first `count` requests that share at least so many blocks with an earlier one, and those
    earlier ones: a small part of the trace that shares prefixes as the whole does."""
    by_prefix: dict[tuple[int, ...], int] = {}
    chosen: set[int] = set()
    for number, one in enumerate(trace):
        key = tuple(one["hash_ids"][:blocks])
        if len(key) < blocks:
            continue
        if key in by_prefix and len(chosen) < count:
            chosen |= {by_prefix[key], number}
        by_prefix.setdefault(key, number)
    return [trace[number] for number in sorted(chosen)]


def scaled(trace: list[dict[str, Any]], vocab: int, scale: int, stretch: float,
           context: int, seed: int) -> list[Request]:
    """Lengths divided by `scale`, times multiplied by `stretch`. Equal hash ids become equal
    tokens, so that equal prefixes stay equal prefixes."""
    requests = []
    block = max(1, BLOCK_TOKENS // scale)
    for one in trace:
        length = max(1, min(one["input_length"] // scale, context - 2))
        most = max(1, min(one["output_length"] // scale, context - length))
        prompt: list[int] = []
        for hash_id in one["hash_ids"][:math.ceil(length / block)]:
            prompt += ids(vocab, block, f"{seed}/{hash_id}")
        prompt += ids(vocab, max(0, length - len(prompt)), f"{seed}/rest/{one['timestamp']}")
        requests.append((one["timestamp"] * stretch, most, prompt[:length], []))
    return requests


def possible_hits(requests: Iterable[Request]) -> int:
    """Prompt tokens that a prefix cache without limits would have had, if every prompt were done
    before the next came. The last token of a prompt is always computed."""
    seen: set[tuple[int, ...]] = set()
    hits = 0
    for _, _, prompt, _ in requests:
        pages = [tuple(prompt[:end]) for end in range(PAGE_TOKENS, len(prompt) + 1, PAGE_TOKENS)]
        hits += PAGE_TOKENS * sum(page in seen for page in pages if len(page) < len(prompt))
        seen.update(pages)
    return hits


def percentile(values: list[float], share: float) -> float:
    """Of a list that is not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def trace(options: Options) -> None:
    """Replays a trace of requests, scaled, with and without the prefix cache."""
    directory = options.directory()
    shown = model.show(directory)
    scale, stretch = (64, 0.5) if options.quick else (64, 4.0)
    chosen = read_trace(options.file or TRACE, REQUESTS)
    if options.quick:
        blocks = PAGE_TOKENS // (BLOCK_TOKENS // scale) + 1
        chosen = sharing(chosen, QUICK_REQUESTS, blocks) or chosen[:QUICK_REQUESTS]
    report = Report("trace", options, "no limit; the floor of hits is a cache without limits")
    report.facts |= {"requests": len(chosen), "lengths_divided_by": scale,
                     "times_multiplied_by": stretch}
    with ExitStack() as stack:
        meshes = {name: stack.enter_context(Mesh(
            f"trace-{name}", options, directory, options.transports[0], gateway=True, flags=flags))
            for name, flags in (("cache", ()), ("no-cache", ("--no-prefix-cache",)))}
        for number in range(1 if options.quick else options.rounds):
            requests = scaled(chosen, int(shown["vocab_size"]), scale, stretch,
                              int(shown["context_tokens"]), number)
            possible = possible_hits(requests)
            for name, mesh in meshes.items():
                answers = mesh.play(requests, bypass_cache=False)
                waits = [time_to_first_token_s(answer) for answer in answers]
                tokens = sum(len(answer["token_ms"]) for answer in answers)
                end = max(answer["token_ms"][-1] for answer in answers)
                cached = sum(answer["cached"] for answer in answers)
                report.add(round=number, side=name, ttft_p50_s=percentile(waits, 0.5),
                           ttft_p99_s=percentile(waits, 0.99), tok_s=tokens / end * 1e3,
                           cached=cached, possible=possible,
                           **{"cached/possible": cached / possible if possible else None})
    report.facts["ttft_p50 cache/no-cache"] = statistics.median(
        a["ttft_p50_s"] / b["ttft_p50_s"]
        for a, b in zip(report.rows[::2], report.rows[1::2], strict=True))
    report.finish()
