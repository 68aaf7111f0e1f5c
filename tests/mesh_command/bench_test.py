"""The arithmetic of `./mesh bench`: workloads, rates, ratios, traces; nothing is started."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from support import ROOT

from mesh import bench, bench_decode, bench_run, bench_serve
from mesh.errors import MeshError


def answer(sent: float, *tokens: float) -> dict[str, object]:
    """As expertmesh-bench-client prints it."""
    return {"sent_ms": sent, "token_ms": list(tokens)}


class WorkloadTest(unittest.TestCase):
    """Requests and what is made of their answers."""

    def test_lanes_have_tokens_of_their_own_and_the_same_for_the_same_seed(self) -> None:
        lanes = bench_run.random_lanes(512, 3, 8, 4, seed=7)
        self.assertEqual(lanes, bench_run.random_lanes(512, 3, 8, 4, seed=7))
        self.assertNotEqual(lanes, bench_run.random_lanes(512, 3, 8, 4, seed=8))
        self.assertNotEqual(lanes[0], lanes[1])
        for _, most, prompt, forced in lanes:
            self.assertEqual((most, len(prompt), len(forced)), (4, 8, 4))
            self.assertLess(max(prompt + forced), 512)

    def test_requests_are_lines_that_count_their_tokens(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = bench_run.write_requests(Path(folder) / "a" / "b", [(1.5, 2, [7, 8], [9, 10]),
                                                                       (3, 5, [1], [])])
            self.assertEqual(path.read_text(), "1.500 2 2 7 8 2 9 10\n3.000 5 1 1 0\n")

    def test_the_rate_counts_only_while_every_lane_decodes(self) -> None:
        early = answer(0, 10, 20, 30, 40, 50)
        late = answer(0, 30, 40, 50, 60)
        self.assertAlmostEqual(bench_run.decode_rate([early, late]), 4 / 20e-3)
        with self.assertRaises(MeshError):
            bench_run.decode_rate([answer(0, 1, 2), answer(0, 3, 4)])

    def test_time_to_first_token_begins_when_it_is_sent(self) -> None:
        self.assertAlmostEqual(bench_run.time_to_first_token_s(answer(500, 750, 800)), 0.25)

    def test_pieces_of_a_round_are_its_steps(self) -> None:
        work = bench_decode.Workload(bench_run.Options(), {"vocab_size": 512}, 2)
        whole = work.requests(3)
        steps = 128 // work.pieces
        self.assertLess(steps, 128)
        pieces = [work.piece(3, number) for number in range(work.pieces)]
        for lane, (_, _, prompt, forced) in enumerate(whole):
            self.assertEqual(sum((piece[lane][3] for piece in pieces), []), forced)
            for number, piece in enumerate(pieces):
                self.assertEqual(piece[lane][1:3], (steps, prompt + forced[:steps * number]))

    def test_weights_of_a_step(self) -> None:
        shown = {"experts": 64, "parts": {"embedding": {"bytes": 1000}, "head": {"bytes": 10},
                                          "mla": {"bytes": 5}, "routed_experts": {"bytes": 640}}}
        self.assertEqual(bench_decode.step_bytes("bf16", shown, 16), 10 + 5 + 160)
        shown["parts"]["head"]["parameters"] = 4  # int8 packs it
        self.assertEqual(bench_decode.step_bytes("int8", shown, 16), 4 * 1.0625 + 5 + 160)
        del shown["parts"]["head"]  # tied: the embedding is the head
        self.assertEqual(bench_decode.step_bytes("bf16", shown, 16), 1000 + 5 + 160)


class AlternateTest(unittest.TestCase):
    """Runs of both sides, in turns."""

    def test_sides_take_turns_and_a_ratio_is_of_rounds(self) -> None:
        order: list[str] = []

        def side(name: str, values: list[float]) -> bench_run.Callable[[int], float]:
            return lambda number: (order.append(name), values[number])[1]

        with contextlib.redirect_stderr(io.StringIO()):
            figures = bench_run.alternate({"a": side("a", [2, 30, 4]), "b": side("b", [1, 10, 4])},
                                          3)
        self.assertEqual(order, ["a", "b", "b", "a", "a", "b"])
        self.assertEqual(bench_run.ratio(figures, "a", "b"), 2)  # of 2, 3 and 1

    def test_sides_that_are_started_for_every_round_take_turns_within_it(self) -> None:
        order: list[str] = []

        def side(name: str, number: int, piece: int) -> bench_run.Pace:
            order.append(f"{name}{number}.{piece}")
            return 10, 1 + piece  # as slow as this only in the second piece

        def start(stack: contextlib.ExitStack) -> dict[str, functools.partial[bench_run.Pace]]:
            order.append("start")
            stack.callback(order.append, "stop")
            return {name: functools.partial(side, name) for name in "ab"}

        with contextlib.redirect_stderr(io.StringIO()):
            figures = bench_run.interleave_anew(start, 2, 2)
        self.assertEqual(" ".join(order), "start a-1.0 b-1.0 a0.0 b0.0 b0.1 a0.1 stop "
                                          "start a-1.0 b-1.0 b1.0 a1.0 a1.1 b1.1 stop")
        self.assertEqual(figures, {"a": [20 / 3, 20 / 3], "b": [20 / 3, 20 / 3]})

    def test_a_report_is_a_table_and_one_line_of_json(self) -> None:
        report = bench_run.Report("some", bench_run.Options())
        report.add(lanes=1, rate=1234567.0)
        report.add(lanes=4, other=None)
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(out), \
                mock.patch.object(bench_run, "RESULTS", Path(folder)):
            report.finish()
            written = (Path(folder) / "some.json").read_text()
        lines = out.getvalue().splitlines()
        self.assertEqual(lines[:3], ["lanes     rate  other", "    1  1234567      -",
                                     "    4        -      -"])
        self.assertEqual(json.loads(lines[-1])["rows"][0], {"lanes": 1, "rate": 1234567.0})
        self.assertEqual(lines[-1] + "\n", written)


class TraceTest(unittest.TestCase):
    """Replay of a trace of requests."""

    def test_equal_blocks_become_equal_tokens(self) -> None:
        trace = [{"timestamp": 0, "input_length": 1100, "output_length": 64, "hash_ids": [1, 2, 3]},
                 {"timestamp": 9, "input_length": 1100, "output_length": 64, "hash_ids": [1, 4, 5]}]
        first, second = bench_serve.scaled(trace, 512, 8, 2.0, context=4096, seed=0)
        self.assertEqual((first[0], second[0]), (0.0, 18.0))
        self.assertEqual((len(first[2]), first[1]), (137, 8))
        self.assertEqual(first[2][:64], second[2][:64])
        self.assertNotEqual(first[2][64:128], second[2][64:128])

    def test_a_cache_without_limits_has_whole_pages_but_never_the_last_token(self) -> None:
        prompt = list(range(130))
        requests = [(0.0, 1, prompt, []), (1.0, 1, prompt[:128], []), (2.0, 1, prompt[:100], [])]
        self.assertEqual(bench_serve.possible_hits(requests), 64 + 64)

    def test_the_committed_sample_is_a_thousand_requests_that_share(self) -> None:
        trace = bench_serve.read_trace(bench_serve.TRACE, 2000)
        self.assertEqual(len(trace), 1000)
        few = bench_serve.sharing(trace, 16, 9)
        self.assertGreaterEqual(len(few), 16)
        requests = bench_serve.scaled(few, 512, 64, 1.0, 4096, 0)
        self.assertGreater(bench_serve.possible_hits(requests), 0)

    def test_what_is_no_trace_is_refused(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace"
            for text in ("", "{}\n", "no json\n"):
                path.write_text(text)
                with self.assertRaises(MeshError):
                    bench_serve.read_trace(path, 10)
            with self.assertRaises(MeshError):
                bench_serve.read_trace(path.with_name("absent"), 10)


class FlagsTest(unittest.TestCase):
    """What is refused before anything is built."""

    def test_numbers(self) -> None:
        self.assertEqual(bench.numbers("1,16"), (1, 16))
        for bad in ("", "1,", "x", "-1", "1.5"):
            with self.assertRaises(argparse.ArgumentTypeError):
                bench.numbers(bad)

    def test_every_benchmark_of_all_exists(self) -> None:
        self.assertLessEqual(set(bench.ORDER), set(bench.HARNESS))
        text = (ROOT / "docs" / "benchmarks.md").read_text()
        for name in (*bench.HARNESS, *bench.programs()):
            self.assertIn(f"`./mesh bench {name}", text)


if __name__ == "__main__":
    unittest.main()
