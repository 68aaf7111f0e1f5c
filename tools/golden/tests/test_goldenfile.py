"""Margins, the writer and the index."""

from __future__ import annotations

import math
import tempfile
import unittest
from pathlib import Path

import numpy as np

from tools.golden import goldenfile
from tools.golden.goldenfile import Recorded


class Margins(unittest.TestCase):
    def test_gap_is_in_standard_deviations_of_the_candidates(self) -> None:
        scores = np.array([[4.0, 1.0, 3.0, 2.0], [0.0, 10.0, 30.0, -math.inf]])
        self.assertAlmostEqual(goldenfile.smallest_gap(scores[:1], 2), 1 / np.std([1, 2, 3, 4]))
        self.assertAlmostEqual(goldenfile.smallest_gap(scores, 2),
                               min(1 / np.std([1, 2, 3, 4]), 10 / np.std([0, 10, 30])))

    def test_rows_that_reject_nothing_and_exact_ties_do_not_count(self) -> None:
        self.assertEqual(goldenfile.smallest_gap(np.array([[1.0, 2.0, -math.inf]]), 2), math.inf)
        self.assertEqual(goldenfile.smallest_gap(np.array([[1.0, 0.0, 0.0]]), 2), math.inf)

    def test_narrow_cases_have_a_band_and_others_a_floor(self) -> None:
        self.assertTrue(goldenfile.keeps_margins({"experts": 3e-5, "positions": None}, False))
        self.assertFalse(goldenfile.keeps_margins({"experts": 1.9e-5, "positions": 1.0}, False))
        self.assertTrue(goldenfile.keeps_margins({"experts": 1.0, "positions": 9e-5}, True))
        self.assertFalse(goldenfile.keeps_margins({"experts": 1.0, "positions": 2e-4}, True))

    def test_token_margin_looks_at_rows_that_choose_a_token(self) -> None:
        rows = np.array([[0.0, 0.0], [0.0, 2.0], [3.0, 2.5], [1.0, 1.1]])
        recorded = Recorded("s0", 2, np.arange(4), rows, {})
        self.assertAlmostEqual(goldenfile.token_margin(recorded), 2.0)
        # rows 1 and 2 choose; two values lie 2 standard deviations apart


class Files(unittest.TestCase):
    def setUp(self) -> None:
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.folder = Path(held.name)

    def _write(self, name: str) -> Recorded:
        rng = np.random.default_rng(1)
        recorded = Recorded("s0", 2, np.array([3, 1, 2]), rng.standard_normal((3, 5)),
                            {0: rng.standard_normal((3, 4))}, {0: np.array([[0, 2]] * 3)},
                            {0: np.array([[0, -1]] * 3)}, start_position=7)
        (self.folder / name).mkdir()
        goldenfile.write_golden(self.folder / name, {"case": name}, [recorded])
        return recorded

    def test_round_trip(self) -> None:
        recorded = self._write("one")
        about, tensors = goldenfile.read_golden(self.folder / "one")
        self.assertEqual(about, {"case": "one", "sequences": [
            {"name": "s0", "prompt_length": 2, "tokens": 3, "start_position": 7}]})
        self.assertEqual({name: value.dtype.name for name, value in tensors.items()},
                         {"s0.tokens": "int32", "s0.logits": "float32", "s0.hidden.0": "float32",
                          "s0.experts.0": "int32", "s0.positions.0": "int32"})
        np.testing.assert_array_equal(tensors["s0.logits"], recorded.logits.astype(np.float32))
        np.testing.assert_array_equal(tensors["s0.positions.0"], recorded.positions[0])

    def test_index_lists_finished_cases_and_replacing_leaves_nothing_behind(self) -> None:
        self._write("b")
        self._write(".a.part")
        (self.folder / "a").mkdir()
        (self.folder / "a" / "stale").write_text("")
        self.assertEqual(goldenfile.write_index(self.folder, 3), ["b"])
        goldenfile.replace_folder(self.folder / ".a.part", self.folder / "a")
        self.assertFalse((self.folder / "a" / "stale").exists())
        self.assertEqual(goldenfile.write_index(self.folder, 3), ["a", "b"])


if __name__ == "__main__":
    unittest.main()
