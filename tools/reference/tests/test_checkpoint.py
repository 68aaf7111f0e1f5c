"""Directories: what is written is read again, names and dtypes, refusals."""

import json
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tools.reference.checkpoint import (CheckpointError, load, quantise_rows, save, tensors_of,
                                        widen_rows)
from tools.reference.tests.small import random_tokens, small_model


class CheckpointTest(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = Path(self.temporary.name)

    def test_float32_is_kept_in_bits(self) -> None:
        for changes in ({}, {"hc_mult": 1, "tie_word_embeddings": True, "n_shared_experts": 0},
                        {"index_topk": None, "engram_layer_ids": []}):
            model = small_model(**changes)
            save(self.folder, model)
            again = load(self.folder)
            self.assertEqual(again.config, model.config)
            self.assertEqual(again.state_dict().keys(), model.state_dict().keys())
            for name, value in model.state_dict().items():
                self.assertTrue(torch.equal(value, again.state_dict()[name]), name)

    def test_a_second_write_of_bf16_and_fp8_changes_nothing(self) -> None:
        save(self.folder / "a", small_model(engram_head_dim=40), torch.bfloat16, fp8_tables=True)
        first = load(self.folder / "a")
        save(self.folder / "b", first, torch.bfloat16, fp8_tables=True)
        second, tokens = load(self.folder / "b"), random_tokens(10)
        self.assertTrue(torch.equal(first(tokens).logits, second(tokens).logits))

    def test_names_and_types(self) -> None:
        tensors = tensors_of(small_model(), torch.bfloat16, fp8_tables=True)
        for name, dtype, shape in (
                ("model.embed_tokens.weight", torch.bfloat16, (96, 32)),
                ("model.hc_head.hc_fn", torch.float32, (4, 128)),
                ("model.layers.0.attn_hc.fn", torch.float32, (24, 128)),
                ("model.layers.0.mlp.gate_proj.weight", torch.bfloat16, (64, 32)),
                ("model.layers.1.mlp.gate.e_score_correction_bias", torch.float32, (16,)),
                ("model.layers.1.mlp.experts.15.down_proj.weight", torch.bfloat16, (32, 16)),
                ("model.layers.1.mlp.shared_experts.up_proj.weight", torch.bfloat16, (16, 32)),
                ("model.layers.3.self_attn.indexer.k_norm.bias", torch.bfloat16, (16,)),
                ("model.engram.token_class", torch.int32, (96,)),
                ("model.layers.1.engram.primes", torch.int64, (4,)),
                ("model.layers.1.engram.multipliers", torch.int64, (3,)),
                ("model.layers.1.engram.embed.weight", torch.float8_e4m3fn, (420, 8)),
                ("model.layers.1.engram.embed.scale", torch.float8_e8m0fnu, (420, 1)),
                ("model.layers.1.engram.wkv.weight", torch.bfloat16, (160, 32)),
                ("model.layers.3.engram.q_weight", torch.bfloat16, (4, 32))):
            self.assertEqual((tensors[name].dtype, tuple(tensors[name].shape)), (dtype, shape))
        self.assertNotIn("model.layers.2.self_attn.indexer.wk.weight", tensors)
        save(self.folder, small_model(), torch.bfloat16, fp8_tables=True)
        with safe_open(self.folder / "model.safetensors", framework="pt") as opened:
            self.assertEqual(set(opened.keys()), set(tensors))
        raw = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.assertEqual(raw["indexer_types"], ["full", "full", "shared", "full", "shared"])
        self.assertEqual(raw["torch_dtype"], "bfloat16")

    def test_fp8_rows(self) -> None:
        table = torch.randn(50, 72) * torch.logspace(-6, 6, 50)[:, None]
        table[7] = 0.0
        table[8, :32] = 448.0
        values, scale = quantise_rows(table)
        self.assertEqual((tuple(scale.shape), values.float().abs().max().item() <= 448),
                         ((50, 3), True))
        self.assertEqual(int(scale[8, 0].view(torch.uint8)), 127)
        again = widen_rows(values, scale)
        error = (again - table).abs().view(50, 72) / table.abs().amax(-1, keepdim=True).clamp(
            min=1e-30)
        self.assertLess(float(error.max()), 2**-4)

    def test_shards(self) -> None:
        model = small_model()
        save(self.folder, model)
        tensors = load_file(self.folder / "model.safetensors")
        names = sorted(tensors)
        halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        weight_map = {}
        for file, own in halves.items():
            save_file({name: tensors[name] for name in own}, self.folder / file)
            weight_map |= {name: file for name in own}
        (self.folder / "model.safetensors").unlink()
        (self.folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": weight_map}), encoding="utf-8")
        tokens = random_tokens(5)
        self.assertTrue(torch.equal(load(self.folder)(tokens).logits, model(tokens).logits))

    def test_refusals_name_the_tensor(self) -> None:
        save(self.folder, small_model())
        good = load_file(self.folder / "model.safetensors")
        base = "model.layers.1."
        for name, value in (
                ("model.norm.weight", None), ("model.norm.weight", torch.ones(31)),
                (base + "attn_hc.fn", good[base + "attn_hc.fn"].bfloat16()),
                (base + "mlp.experts.3.up_proj.weight", torch.ones(16, 32).half()),
                (base + "engram.primes", good[base + "engram.primes"] + 2),
                (base + "engram.multipliers", good[base + "engram.multipliers"].int()),
                ("model.engram.token_class", good["model.engram.token_class"] + 1)):
            bad = good | {name: value}
            save_file({key: own for key, own in bad.items() if own is not None},
                      self.folder / "model.safetensors")
            with self.subTest(tensor=name), self.assertRaisesRegex(CheckpointError, name):
                load(self.folder)
