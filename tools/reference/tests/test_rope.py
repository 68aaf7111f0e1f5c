"""Rotary positions: YaRN constants of docs/formats.md §12, precision far out."""

import math
import unittest

import numpy as np
import torch

from tools.reference.rope import Rotation, YarnScaling, frequencies
from tools.reference.tests.small import deviation, random_tokens, small_model


def yarn(factor: float, original: int, fast: float = 32, slow: float = 1,
         **more: float) -> YarnScaling:
    return YarnScaling(factor, original, fast, slow, **more)


class YarnTest(unittest.TestCase):
    def test_correction_ranges(self) -> None:
        self.assertEqual(yarn(40, 4096).correction_range(1e4, 64), (10, 23))
        self.assertEqual(yarn(16, 65536).correction_range(1.6e5, 64), (15, 25))
        self.assertEqual(yarn(64, 4096, 1, 1).correction_range(5e4, 64), (19, 20))

    def test_magnitudes(self) -> None:
        for factor, m in ((16, 1.2772589), (32, 1.3465736), (40, 1.3688879), (64, 1.4158883)):
            self.assertAlmostEqual(yarn(factor, 4096).magnitude(1), m, places=7)
        v3 = yarn(40, 4096, mscale=1, mscale_all_dim=1)
        self.assertAlmostEqual(192**-0.5 * v3.softmax_factor(), 0.1352337788608801, places=15)
        self.assertEqual(v3.cos_sin_factor(), 1.0)
        self.assertEqual(yarn(40, 4096).softmax_factor(), 1.0)
        self.assertAlmostEqual(yarn(40, 4096).cos_sin_factor(), 1.3688879, places=7)
        self.assertEqual(yarn(40, 4096, attention_factor=0.5).cos_sin_factor(), 0.5)

    def test_frequencies_are_blended(self) -> None:
        plain, scaled = frequencies(1e4, 64, None), frequencies(1e4, 64, yarn(40, 4096))
        np.testing.assert_array_equal(scaled[:11], plain[:11])
        np.testing.assert_allclose(scaled[23:], plain[23:] / 40, rtol=1e-15)
        self.assertTrue((scaled[11:23] < plain[11:23]).all())

    def test_it_changes_the_model(self) -> None:
        tokens = random_tokens(24)
        scaling = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64,
                   "mscale": 1, "mscale_all_dim": 0.5}
        plain, scaled = small_model(), small_model(rope_scaling=scaling)
        self.assertGreater(deviation(plain(tokens).logits, scaled(tokens).logits), 0.01)


class RotationTest(unittest.TestCase):
    def test_angles_are_float64(self) -> None:
        turn = Rotation(np.array([999_983]), 8e6, 8, None, torch.float32)
        for pair, (cos, sin) in enumerate(zip(turn.cos[0].tolist(), turn.sin[0].tolist())):
            angle = 999_983 * 8e6**(-2 * pair / 8)
            self.assertAlmostEqual(cos, math.cos(angle), delta=6e-8)
            self.assertAlmostEqual(sin, math.sin(angle), delta=6e-8)

    def test_pairs(self) -> None:
        x = torch.arange(6.0).view(1, 1, 6)
        turn = Rotation(np.array([1]), 1e4, 4, None, torch.float64)
        c, s = turn.cos[0].tolist(), turn.sin[0].tolist()
        interleaved = [-s[0], c[0], 2 * c[1] - 3 * s[1], 2 * s[1] + 3 * c[1], 4, 5]
        halves = [-2 * s[0], c[1] - 3 * s[1], 2 * c[0], s[1] + 3 * c[1], 4, 5]
        for mode, expected in ((True, interleaved), (False, halves)):
            for got, want in zip(turn(x.double(), mode)[0, 0].tolist(), expected):
                self.assertAlmostEqual(got, want, places=7)

    def test_scores_depend_on_distance_only(self) -> None:
        q, k = torch.randn(1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 8, dtype=torch.float64)
        scores = []
        for start in (0, 999_936):
            at = [Rotation(np.array([start + i]), 1e4, 8, None, torch.float64) for i in (5, 2)]
            scores.append(float((at[0](q) * at[1](k)).sum()))
        self.assertAlmostEqual(scores[0], scores[1], delta=1e-6)
