"""The committed goldens of the family are what the reference computes from their checkpoints."""

import json
import unittest
from pathlib import Path

import torch
from safetensors.torch import load_file

from tools.reference.checkpoint import load
from tools.reference.tests.small import deviation

FOLDER = Path(__file__).resolve().parents[3] / "tests" / "parity" / "goldens"


class GoldensTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(torch.no_grad())

    def test_every_case(self) -> None:
        cases = sorted(FOLDER.glob("expertmesh_*/case.json"))
        self.assertGreaterEqual(len(cases), 10)
        for path in cases:
            with self.subTest(case=path.parent.name):
                self.check(json.loads(path.read_text(encoding="utf-8")), path.parent)

    def check(self, about: dict, folder: Path) -> None:
        """One prefill over all tokens against the recorded prefill and decode steps."""
        golden, model = load_file(folder / "golden.safetensors"), load(folder / "checkpoint")
        names = ("hidden", "experts", "positions")
        for sequence in about["sequences"]:
            own = {name.split(".", 1)[1]: value for name, value in golden.items()
                   if name.startswith(sequence["name"] + ".")}
            tokens = own["tokens"].long()
            self.assertEqual(len(tokens), sequence["tokens"])
            out = model(tokens[None], model.new_cache(1, sequence["start_position"]),
                        records=names)
            self.assertLess(deviation(out.logits[0], own["logits"]), 2e-5)
            prompt = sequence["prompt_length"]
            self.assertEqual(tokens[prompt:].tolist(),
                             own["logits"][prompt - 1:-1].argmax(-1).tolist())
            expected = {f"{name}.{layer}" for name in names for layer in out.records[name]}
            self.assertEqual(set(own), expected | {"tokens", "logits"})
            for name in expected:
                kind, layer = name.split(".")
                value = out.records[kind][int(layer)][0]
                if kind == "hidden":
                    value = value if about["streams"] > 1 else value[:, 0]
                    self.assertLess(deviation(value, own[name]), 2e-5)
                else:
                    self.assertTrue(torch.equal(value, own[name]))
        for kind, smallest in about["margins"].items():
            self.assertTrue(smallest is None or smallest >= 2e-5, kind)
