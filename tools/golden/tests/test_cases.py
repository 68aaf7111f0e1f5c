"""The registry, determinism of a case, and odd checkpoint files."""

from __future__ import annotations

import json
import struct
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from tools.golden import __main__ as command
from tools.golden import build, checkpoint
from tools.golden.cases import all_cases, deepseek_v3, deepseek_v32, glm_moe_dsa


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


class Version(unittest.TestCase):
    def test_another_release_is_refused_with_a_clear_line(self) -> None:
        self.assertIsNone(command.check_version())
        with mock.patch("importlib.metadata.version", return_value="5.22.0"):
            self.assertIn("needs transformers 5.23.0, found 5.22.0", command.check_version() or "")


class Registry(unittest.TestCase):
    def test_names_are_unique_and_begin_with_the_family(self) -> None:
        names = [case.name for case in all_cases()]
        self.assertEqual(len(names), len(set(names)))
        for module in (deepseek_v3, deepseek_v32, glm_moe_dsa):
            for spec in module.SPECS:
                self.assertIn(spec.name, names)
                self.assertTrue(spec.name.startswith(spec.config["model_type"] + "_"))

    def test_every_case_decodes_64_tokens_in_one_sequence(self) -> None:
        for module in (deepseek_v3, deepseek_v32, glm_moe_dsa):
            for spec in module.SPECS:
                self.assertGreaterEqual(max(steps for _, steps in spec.sequences), 64, spec.name)


class OneCase(unittest.TestCase):
    def setUp(self) -> None:
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.folder = Path(held.name)
        self.spec = next(spec for spec in deepseek_v3.SPECS if spec.sharded)

    def test_a_seed_gives_the_same_bytes_again_and_another_seed_others(self) -> None:
        for name, seed in (("a", 0), ("b", 0), ("c", 5000)):
            (self.folder / name).mkdir()
            build.write(self.spec, seed, self.folder / name)
        first, second, other = (_contents(self.folder / name) for name in "abc")
        self.assertEqual(first, second)
        self.assertEqual(first.keys(), other.keys())
        for name in first:
            if name.endswith(".safetensors"):
                self.assertNotEqual(first[name], other[name])

    def test_shards_are_odd_but_whole(self) -> None:
        rng = build.random_numbers(self.spec, 1)
        tensors = build.make_checkpoint(self.spec, rng, self.folder / "odd")
        self.assertEqual({value.dtype for value in tensors.values()},
                         {torch.float32, torch.bfloat16, torch.float16})
        files = sorted((self.folder / "odd").glob("*.safetensors"))
        self.assertEqual(len(files), 3)
        for path in files:
            data = path.read_bytes()
            length = struct.unpack("<Q", data[:8])[0]
            self.assertEqual((8 + length) % 64, 0)
            header = json.loads(data[8:8 + length])
            self.assertEqual(header.pop("__metadata__"), {"format": "pt"})
            offsets = [entry["data_offsets"] for entry in header.values()]
            self.assertNotEqual(offsets, sorted(offsets))
        _, found = checkpoint.read(self.folder / "odd")
        self.assertEqual(found.keys(), tensors.keys())
        self.assertTrue(all(torch.equal(found[name], tensors[name]) for name in tensors))

    def test_a_seed_that_cannot_keep_the_margins_is_unfit(self) -> None:
        narrow = next(spec for spec in deepseek_v3.SPECS if spec.narrow)
        with self.assertRaises(build.Unfit):
            build.attempt(narrow, 0, self.folder / "narrow")


class Weights(unittest.TestCase):
    def test_nothing_is_near_its_neutral_point(self) -> None:
        spec = next(spec for spec in deepseek_v32.SPECS if not spec.narrow)
        tensors = checkpoint.randomise(spec.config, np.random.default_rng(0), torch.float32)
        own = "model.layers.1."
        self.assertAlmostEqual(float(tensors["model.norm.weight"].std()), 0.1, delta=0.04)
        bias = tensors[f"{own}mlp.gate.e_score_correction_bias"]
        self.assertAlmostEqual(float(bias.std()), 0.1, delta=0.06)
        wide = tensors[f"{own}self_attn.q_b_proj.weight"]
        self.assertAlmostEqual(float(wide.std()) * wide.shape[1] ** 0.5, 1.0, delta=0.1)
        self.assertGreater(float(tensors[f"{own}self_attn.indexer.k_norm.bias"].std()), 0.05)


if __name__ == "__main__":
    unittest.main()
