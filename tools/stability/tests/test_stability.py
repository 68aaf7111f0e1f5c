"""The statements of docs/model-family.md §7 as tests."""

from __future__ import annotations

import math
import unittest

import torch

from tools.reference import presets
from tools.reference.model import ExpertMesh
from tools.reference.weights import randomise, start_training
from tools.stability import activations, dilution, streams


class StabilityTest(unittest.TestCase):
    """One case for each statement."""

    def test_no_stream_grows_by_mixing(self) -> None:
        for spread in streams.SPREADS:
            found = streams.products(spread, count=50)
            self.assertLessEqual(found.column_high, 1 + 2.4e-7, spread)
            self.assertLessEqual(found.column_lost, streams.LOST_PER_MAP, spread)
            self.assertGreaterEqual(found.mass, 1 - streams.MAPS * streams.LOST_PER_MAP, spread)
            self.assertLessEqual(found.growth, 1 + streams.MAPS * 2.4e-7, spread)

    def test_the_rows_do_not_hold_for_peaked_logits(self) -> None:
        self.assertLess(streams.products(1.0, count=50).row_error, 2e-3)
        peaked = streams.products(30.0, count=50)
        self.assertGreater(peaked.row_error, 1e-2)
        self.assertLessEqual(peaked.spectral, math.sqrt(1 + peaked.row_error) + 1e-6)

    def test_activations_stay_below_what_the_weights_allow(self) -> None:
        config = presets.preset("tiny")
        draw = torch.Generator().manual_seed(1)
        for fill in (randomise, start_training):
            model = fill(ExpertMesh(config, presets.hash_data(config)), 1)
            for length in (1, 60, 400):
                tokens = torch.randint(0, 512, (2, length), generator=draw)
                for found in activations.norms(model, tokens):
                    self.assertLessEqual(found.measured, found.bound, (fill, length, found))

    def test_dilution_is_bounded_by_the_selected(self) -> None:
        for context in dilution.CONTEXTS:
            for strength in (0.6, 1.0):
                found = dilution.plant(context, strength)
                self.assertGreaterEqual(found.dense_p, found.dense_bound * (1 - 1e-9), found)
                self.assertGreaterEqual(found.sparse_p, found.sparse_bound * (1 - 1e-9), found)
                self.assertLessEqual(found.entropy, math.log(dilution.SELECTED) + 1e-9, found)
                self.assertEqual(found.sparse_p > 0, found.rank < dilution.SELECTED, found)


if __name__ == "__main__":
    unittest.main()
