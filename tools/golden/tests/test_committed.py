"""The committed goldens agree with the pages, and show each mechanism they are there for."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tools.golden import build, checkpoint, goldenfile, page
from tools.golden.cases import deepseek_v3, deepseek_v32, glm_moe_dsa

FOLDER = Path(__file__).resolve().parents[3] / "tests" / "parity" / "goldens"
SPECS = [spec for module in (deepseek_v3, deepseek_v32, glm_moe_dsa) for spec in module.SPECS]
SEEN = 2e-4  # σ, the tolerance of the comparison with C++


def _logits_deviation(name: str, changes: dict[str, Any] | None = None) -> float:
    """How far the page is from the golden of a case after `changes` of its config."""
    about, golden = goldenfile.read_golden(FOLDER / name)
    config, tensors = checkpoint.read(FOLDER / name / "checkpoint")
    model = page.Page(config | (changes or {}), tensors,
                      about.get("masked_gate_group_zero", False))
    return goldenfile.largest_deviation(golden["s0.logits"],
                                        model.forward(golden["s0.tokens"]).logits)


class Committed(unittest.TestCase):
    def test_the_page_computes_what_every_golden_holds(self) -> None:
        for spec in SPECS:
            with self.subTest(spec.name):
                self.assertLessEqual(_logits_deviation(spec.name), build.FLOAT64_MAX)

    def test_margins_are_what_case_json_says(self) -> None:
        for spec in SPECS:
            with self.subTest(spec.name):
                about, _ = goldenfile.read_golden(FOLDER / spec.name)
                self.assertEqual(about["why"], spec.why)
                self.assertTrue(goldenfile.keeps_margins(about["margins"], spec.narrow))
                self.assertGreaterEqual(about["token_margin"], goldenfile.TOKEN_MARGIN_MIN)

    def test_tokens_are_greedy(self) -> None:
        for spec in SPECS:
            about, golden = goldenfile.read_golden(FOLDER / spec.name)
            for sequence in about["sequences"]:
                with self.subTest(spec.name, sequence=sequence["name"]):
                    first = sequence["prompt_length"]
                    best = golden[f"{sequence['name']}.logits"][first - 1:-1].argmax(-1)
                    np.testing.assert_array_equal(golden[f"{sequence['name']}.tokens"][first:],
                                                  best)


class Shown(unittest.TestCase):
    """A wrong reading moves the logits by more than the tolerance."""

    def test_config_keys(self) -> None:
        yarn = "deepseek_v3_yarn"
        config, _ = checkpoint.read(FOLDER / yarn / "checkpoint")
        rope = config["rope_scaling"]
        mixed, _ = checkpoint.read(FOLDER / "deepseek_v3_yarn_mscale" / "checkpoint")
        for name, changes in (
                ("deepseek_v3_groups", {"n_group": 1, "topk_group": 1}),
                ("deepseek_v3_groups", {"rms_norm_eps": 1e-6}),
                ("deepseek_v3_tied", {"norm_topk_prob": True}),
                (yarn, {"rope_scaling": None}),
                (yarn, {"rope_scaling": rope | {"mscale_all_dim": 0, "attention_factor": 1.0}}),
                (yarn, {"rope_scaling": rope | {"beta_slow": 2}}),
                ("deepseek_v3_yarn_mscale", {"rope_scaling": mixed["rope_scaling"]
                                             | {"attention_factor": 1.0}}),
                ("deepseek_v3_yarn_no_all_dim", {"rope_parameters": rope | {"mscale": 0}}),
                ("deepseek_v32_plain", {"index_topk": 11}),
                ("deepseek_v32_plain", {"model_type": "glm_moe_dsa"}),
                ("glm_moe_dsa_shared", {"model_type": "deepseek_v32",
                                        "indexer_types": ["full", "full", "shared", "full"]}),
                ("glm_moe_dsa_types", {"indexer_types": ["full"] + ["shared"] * 4})):
            with self.subTest(name, changes=changes):
                self.assertGreater(_logits_deviation(name, changes), SEEN)

    def test_latent_norms_with_the_epsilon_of_the_config(self) -> None:
        for name, eps in (("deepseek_v3_groups", 1e-3), ("glm_moe_dsa_types", 1e-3)):
            with self.subTest(name), mock.patch.object(page, "_LATENT_EPS", eps):
                self.assertGreater(_logits_deviation(name), SEEN)

    def test_the_rule_for_excluded_groups(self) -> None:
        for name, zero in (("deepseek_v3_group_mask_infinity", True),
                           ("deepseek_v3_group_mask_zero", False)):
            with self.subTest(name):
                _, golden = goldenfile.read_golden(FOLDER / name)
                config, tensors = checkpoint.read(FOLDER / name / "checkpoint")
                wrong = page.Page(config, tensors, zero).forward(golden["s0.tokens"])
                self.assertGreater(goldenfile.largest_deviation(golden["s0.logits"],
                                                                wrong.logits), SEEN)


if __name__ == "__main__":
    unittest.main()
