"""Gaps of selections."""

import copy
import math
import unittest

import torch

from tools.reference.decode import greedy
from tools.reference.margins import RECORDS, float64_deviation, margins, smallest_gap
from tools.reference.tests.small import random_tokens, small_model


class MarginsTest(unittest.TestCase):
    def test_gap_in_deviations(self) -> None:
        scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [9.0, 8.0, -math.inf, -math.inf]])
        self.assertAlmostEqual(smallest_gap(scores, 2), 1 / 1.25**0.5)
        self.assertEqual(smallest_gap(scores[1:], 2), math.inf)

    def test_only_zeros_may_tie(self) -> None:
        self.assertEqual(smallest_gap(torch.tensor([[1.0, 0.0, 0.0]]), 2), math.inf)
        self.assertEqual(smallest_gap(torch.tensor([[1.0, 0.5, 0.5]]), 2), 0.0)

    def test_of_a_run(self) -> None:
        model = small_model()
        decoded = greedy(model, random_tokens(10)[0].tolist(), 10,
                         records=(*RECORDS, "experts", "positions"))
        gaps = margins(decoded, 4, 8)
        self.assertTrue(all(0 < gaps[kind] < 1 for kind in ("experts", "positions")))
        self.assertGreater(gaps["tokens"], 0)
        wide = copy.deepcopy(model).double()
        self.assertLess(float64_deviation(decoded, wide, 0), 1e-5)
        torch.nn.init.zeros_(wide.model.layers[0].self_attn.indexer.weights_proj.weight)
        self.assertEqual(float64_deviation(decoded, wide, 0), math.inf)

    def test_nothing_to_select(self) -> None:
        model = small_model(index_topk=None)
        decoded = greedy(model, [1, 2, 3], 2, records=RECORDS)
        self.assertIsNone(margins(decoded, 4, None)["positions"])
