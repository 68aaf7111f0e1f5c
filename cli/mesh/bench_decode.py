"""`./mesh bench decode|lanes|prefill|mesh-tax`: tokens a second against the peer and against one
process of our own. Every lane is teacher-forced with its own seeded random tokens, the same on
both sides."""

from __future__ import annotations

import json
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mesh import bench_peer, model
from mesh.bench_run import (
    RESULTS,
    WARM_UP,
    Options,
    Report,
    Request,
    alternate,
    decode_pace,
    decode_rate,
    floor,
    interleave_anew,
    pss_bytes,
    random_lanes,
    ratio,
    say,
    time_to_first_token_s,
    tool,
    write_requests,
)
from mesh.bench_sides import Mesh, Peer

DISTINCT_STEPS = 8
PIECE_STEPS = 16  # at least
PIECE_STEPS_PER_LANE = 2  # so that every lane still decodes when the last prompt has been taken in
INT8_BYTES = 1 + 2 / 32  # of a weight and its part of a group's scale
PREFILL_TOKENS = 512


class Workload:
    """Lanes of one size, new tokens in every round."""

    def __init__(self, options: Options, shown: dict[str, Any], lanes: int) -> None:
        self.options = options
        self.vocab = int(shown["vocab_size"])
        self.lanes = lanes

    def requests(self, number: int, prompt: int | None = None,
                 steps: int | None = None) -> list[Request]:
        """Of a round."""
        return random_lanes(self.vocab, self.lanes, prompt or self.options.prompt,
                            steps or self.options.steps, 1000 * self.lanes + number)

    @property
    def pieces(self) -> int:
        """Into how many parts of seconds at most `piece` cuts the steps of a round."""
        shortest = max(PIECE_STEPS, PIECE_STEPS_PER_LANE * self.lanes)
        return max(1, self.options.steps // shortest)

    def piece(self, number: int, piece: int) -> list[Request]:
        """A part of a round's steps. What comes before it is its prompt, most of which a side with
        a prefix cache still has."""
        steps = self.options.steps // self.pieces
        return [(at_ms, steps, prompt + forced[:piece * steps],
                 forced[piece * steps:(piece + 1) * steps])
                for at_ms, _, prompt, forced in self.requests(number)]

    @property
    def context(self) -> int:
        return self.options.prompt + self.options.steps


def peer_rate(answer: dict[str, Any], lanes: int) -> float:
    """Tokens a second of its steps."""
    return float(lanes * answer["steps"] / answer["decode_s"])


def best_settings(options: Options, gguf: Path, work: Workload, prefill: bool,
                  ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The peer's fastest settings for this workload, and what each of them gave."""
    candidates = bench_peer.candidates(options)
    if len(candidates) == 1:
        return candidates[0], []
    tried = []
    loads = {tuple(sorted((k, v) for k, v in one.items() if k in bench_peer.LOAD_SETTINGS))
             for one in candidates}
    for load in sorted(loads):
        group = [one for one in candidates if dict(load) == {
            k: v for k, v in one.items() if k in bench_peer.LOAD_SETTINGS}]
        with Peer(options, gguf, group[0]) as peer:
            for settings in group:
                peer.open(work.lanes, work.context + PREFILL_TOKENS, settings)
                answer = peer.play(work.requests(WARM_UP, steps=16))
                rate = 1 / answer["prefill_s"] if prefill else peer_rate(answer, work.lanes)
                tried.append({"settings": settings, "rate": rate})
                say(f"peer, {work.lanes} lanes, {settings}: {rate:.4g}")
    return max(tried, key=lambda one: one["rate"])["settings"], tried


def step_bytes(profile: str, shown: dict[str, Any], distinct: float) -> float:
    """Weight bytes that a decode step reads, of a directory that stores what the profile computes
    with; a head that is stored wider than int8 is packed all the same."""
    parts = {name: part["bytes"] for name, part in shown["parts"].items()}
    head = "head" if "head" in parts else "embedding"  # tied
    if profile == "int8":
        parts[head] = min(parts[head], shown["parts"][head]["parameters"] * INT8_BYTES)
    routed = parts.pop("routed_experts")
    for looked_up_by_row in {"embedding", "engram_tables"} - {head}:
        parts.pop(looked_up_by_row, None)
    return float(sum(parts.values()) + routed * distinct / shown["experts"])


def distinct_experts(options: Options, directory: Path, work: Workload) -> float:
    """Distinct experts per MoE layer and decode step of this workload's first steps."""
    steps = min(DISTINCT_STEPS, options.steps)
    path = write_requests(RESULTS / "distinct.requests", work.requests(0, steps=steps))
    found = tool("expertmesh-bench-model", "distinct", str(directory), options.profile,
                 str(options.threads[0]), str(path))
    return float(found[0]["distinct_experts"])


def batch_flags(count: int) -> tuple[str, ...]:
    """Lets the attention worker take all lanes into one step."""
    return ("--max-batch", str(max(16, count)))


def against_peer(name: str, options: Options, lane_counts: tuple[int, ...], limits: str) -> None:
    """Tokens a second of a mesh per transport beside the peer, for each number of lanes."""
    directory = options.directory()
    shown = model.show(directory)
    report = Report(name, options, limits)
    gguf = bench_peer.gguf(directory, options.profile) if options.peer else None
    for lanes in lane_counts:
        work = Workload(options, shown, lanes)
        row: dict[str, Any] = {"lanes": lanes}
        with ExitStack() as stack:
            sides = {}
            if gguf is not None:
                settings, tried = best_settings(options, gguf, work, prefill=False)
                peer = stack.enter_context(Peer(options, gguf, settings))
                peer.open(lanes, work.context)
                report.facts["peer"] = f"{bench_peer.NAME} ({bench_peer.version()}): " + \
                    peer.about["system"]
                report.facts.setdefault("peer_settings", []).append(
                    {"lanes": lanes, "chosen": settings, "tried": tried})
                sides["peer"] = lambda number: peer_rate(peer.play(work.requests(number)), lanes)
            for transport in options.transports:
                mesh = stack.enter_context(Mesh(transport, options, directory, transport,
                                                flags=batch_flags(lanes)))
                sides[transport] = lambda number, mesh=mesh: decode_rate(
                    mesh.play(work.requests(number)))
            for side in sides.values():
                side(WARM_UP)
            sides["floor"] = lambda _: floor(options)
            figures = alternate(sides, options.rounds)
        row["distinct_experts"] = distinct = distinct_experts(options, directory, work)
        row["stream_read_gb_s"] = statistics.median(figures["floor"]) / 1e9
        for side, rates in figures.items():
            if side != "floor":
                row[f"{side}_tok_s"] = statistics.median(rates)
        for transport in options.transports:
            if gguf is not None:
                row[f"{transport}/peer"] = ratio(figures, transport, "peer")
            row[f"{transport}_read_share"] = ratio(figures, transport, "floor") * \
                step_bytes(options.profile, shown, distinct) / lanes
        report.add(**row)
    report.finish()


def decode(options: Options) -> None:
    """The lanes that issue limits name."""
    against_peer("decode", options, options.lanes or ((1, 4) if options.quick else (1, 4, 16)),
                 "8 bits: 1 lane >= 0.95 of the peer over grpc, 4 lanes >= 1.0, 16 lanes >= 2.5")


def lanes(options: Options) -> None:
    """A curve over lanes."""
    against_peer("lanes", options, options.lanes or ((1, 4, 8) if options.quick else
                                                     (1, 2, 4, 8, 16, 32)),
                 "a curve; decode has the limits")


def prefill(options: Options) -> None:
    """Prompt tokens a second, and the memory of all processes behind it."""
    directory = options.directory()
    shown = model.show(directory)
    tokens = 128 if options.quick else PREFILL_TOKENS
    work = Workload(options, shown, 1)
    report = Report("prefill", options, "8 bits: >= 1.5 of the peer; PSS / weights <= 1.25")
    row: dict[str, Any] = {"prompt": tokens}
    with ExitStack() as stack:
        sides = {}
        if options.peer:
            gguf = bench_peer.gguf(directory, options.profile)
            settings, tried = best_settings(options, gguf, work, prefill=True)
            peer = stack.enter_context(Peer(options, gguf, settings))
            peer.open(1, tokens + 16)
            report.facts["peer"] = f"{bench_peer.NAME} ({bench_peer.version()}): " + \
                peer.about["system"]
            report.facts["peer_settings"] = {"chosen": settings, "tried": tried}
            sides["peer"] = lambda number: tokens / peer.play(
                work.requests(number, tokens, 1))["prefill_s"]
        meshes = {}
        for transport in options.transports:
            mesh = stack.enter_context(Mesh(transport, options, directory, transport))
            meshes[transport] = mesh
            sides[transport] = lambda number, mesh=mesh: tokens / time_to_first_token_s(
                mesh.play(work.requests(number, tokens, 1))[0])
        for side in sides.values():
            side(WARM_UP)
        figures = alternate(sides, options.rounds)
        for transport, mesh in meshes.items():
            row[f"{transport}_pss/weights"] = pss_bytes(mesh.pids()) / shown["bytes"]
    for side, rates in figures.items():
        row[f"{side}_tok_s"] = statistics.median(rates)
    for transport in options.transports:
        if options.peer:
            row[f"{transport}/peer"] = ratio(figures, transport, "peer")
    report.add(**row)
    report.finish()


def dense_layers(directory: Path) -> int:
    """Layers without routed experts."""
    config = json.loads((directory / "config.json").read_text())
    return int(config.get("first_k_dense_replace", 1))


def mesh_tax(options: Options) -> None:
    """Separate processes over one process with everything in it."""
    directory = options.directory()
    shown = model.show(directory)
    report = Report("mesh-tax", options, "grpc >= 0.93, shm >= 0.97 of one process; added time of "
                    "a MoE layer <= 100 us over grpc, 15 us over shm")
    layers = shown["layers"] - dense_layers(directory)
    for count in options.lanes or ((1,) if options.quick else (1, 16)):
        work = Workload(options, shown, count)
        row: dict[str, Any] = {"lanes": count}

        def start(stack: ExitStack, work: Workload = work) -> dict[str, Any]:
            sides = {}
            for transport in ("inproc", *options.transports):
                mesh = stack.enter_context(Mesh(transport, options, directory, transport,
                                                flags=batch_flags(work.lanes)))
                sides[transport] = lambda number, piece, mesh=mesh: decode_pace(
                    mesh.play(work.piece(number, piece), bypass_cache=False))
            return sides

        figures = interleave_anew(start, options.rounds, work.pieces)
        for side, rates in figures.items():
            row[f"{side}_tok_s"] = statistics.median(rates)
        for transport in options.transports:
            row[f"{transport}/inproc"] = ratio(figures, transport, "inproc")
            step_s = statistics.median(
                count / a - count / b
                for a, b in zip(figures[transport], figures["inproc"], strict=True))
            row[f"{transport}_us_per_layer"] = step_s * 1e6 / layers
        report.add(**row)
    report.finish()
