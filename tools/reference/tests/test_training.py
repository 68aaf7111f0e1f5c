"""Backward: who gets a gradient, the indexer's own loss, balance, start values."""

import unittest

import torch
from torch.nn.functional import cross_entropy

from tools.reference.checkpoint import new_model
from tools.reference.presets import preset
from tools.reference.tests.small import SMALL, random_tokens, small_model
from tools.reference.training import balance_gates, indexer_loss, parameter_groups
from tools.reference.weights import start_training

NAMES = ("index_scores", "attention", "expert_load")


def language_loss(model: torch.nn.Module, tokens: torch.Tensor, **options: bool) -> torch.Tensor:
    logits = model(tokens[:, :-1], **options).logits
    return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


class GradientTest(unittest.TestCase):
    def test_each_parameter_learns_from_its_loss(self) -> None:
        model, tokens = small_model(), random_tokens(40, lanes=3)
        language_loss(model, tokens).backward()
        for name, parameter in model.named_parameters():
            with self.subTest(parameter=name):
                if ".indexer." in name or "correction_bias" in name:
                    self.assertIsNone(parameter.grad)
                else:
                    self.assertTrue(parameter.grad.isfinite().all())
                    self.assertGreater(float(parameter.grad.abs().max()), 0.0)

    def test_the_indexer_learns_from_attention_alone(self) -> None:
        for attend_all in (False, True):
            model, tokens = small_model(), random_tokens(40, lanes=2)
            out = model(tokens, records=NAMES, attend_all=attend_all)
            loss = indexer_loss(out.records)
            self.assertGreater(float(loss), 0.0)
            loss.backward()
            for name, parameter in model.named_parameters():
                with self.subTest(parameter=name, attend_all=attend_all):
                    if ".indexer." in name:
                        self.assertTrue(parameter.grad.isfinite().all())
                        self.assertGreater(float(parameter.grad.abs().max()), 0.0)
                    else:
                        self.assertIsNone(parameter.grad)

    def test_both_ways_to_compute_experts_have_one_gradient(self) -> None:
        tokens, gradients = random_tokens(30, lanes=2), []
        for dense in (False, True):
            model = small_model().double()
            language_loss(model, tokens, dense_experts=dense).backward()
            gradients.append({name: parameter.grad for name, parameter in model.named_parameters()
                              if parameter.grad is not None})
        self.assertEqual(gradients[0].keys(), gradients[1].keys())
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradient, gradients[1][name], msg=name)

    def test_gradients_are_the_derivative(self) -> None:
        model = small_model().double()
        tokens = random_tokens(12)
        language_loss(model, tokens).backward()
        for name in ("model.layers.1.engram.wkv.weight", "model.layers.2.attn_hc.fn",
                     "model.layers.2.self_attn.kv_b_proj.weight", "model.layers.3.mlp.gate.weight"):
            parameter = model.get_parameter(name)
            direction = parameter.grad / parameter.grad.norm()
            with torch.no_grad():
                parameter += 1e-6 * direction
                above = language_loss(model, tokens)
                parameter -= 2e-6 * direction
                below = language_loss(model, tokens)
                parameter += 1e-6 * direction
            slope = float((above - below) / 2e-6)
            self.assertAlmostEqual(slope / float(parameter.grad.norm()), 1.0, places=4, msg=name)


class TrainingTest(unittest.TestCase):
    def test_start_values(self) -> None:
        model = start_training(new_model(preset("tiny", **SMALL)), 1)
        hc = model.model.layers[0].attn_hc
        self.assertEqual(hc.scale.tolist(), [torch.tensor(0.01).item()] * 3)
        mixes = hc.mixes(torch.randn(1, 1, 4, 32))
        self.assertLess(float((mixes.pre - 0.25).abs().max()), 0.01)
        self.assertLess(float((mixes.post - 1.0).abs().max()), 0.02)
        self.assertGreater(float(mixes.comb[0, 0].diagonal().min()), 0.9)

    def test_a_few_steps_lower_the_loss(self) -> None:
        model = start_training(new_model(preset("tiny", **SMALL)), 1)
        optimiser = torch.optim.AdamW(parameter_groups(model, 3e-3, 0.1))
        tokens, history = random_tokens(33, lanes=4), []
        for _ in range(12):
            loss = language_loss(model, tokens, dense_experts=True)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            history.append(float(loss.detach()))
        self.assertLess(history[-1], history[0] - 0.5)

    def test_the_indexer_follows_the_attention(self) -> None:
        model, tokens, history = small_model(), random_tokens(33, lanes=4), []
        indexers = [parameter for name, parameter in model.named_parameters()
                    if ".indexer." in name]
        optimiser = torch.optim.Adam(indexers, 1e-2)
        for _ in range(12):
            loss = indexer_loss(model(tokens, records=NAMES, attend_all=True).records)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            history.append(float(loss.detach()))
        self.assertLess(history[-1], 0.8 * history[0])

    def test_groups_hold_every_trained_parameter_once(self) -> None:
        model = small_model()
        groups = parameter_groups(model, 1e-3, 0.1)
        held = [id(p) for group in groups for p in group["params"]]
        self.assertEqual(sorted(held), sorted(id(p) for p in model.parameters()
                                              if p.requires_grad))
        self.assertEqual([group["weight_decay"] for group in groups], [0.1, 0.0, 0.0])
        self.assertEqual(len(groups[2]["params"]), 2)
        self.assertAlmostEqual(groups[2]["lr"], 5e-3)

    def test_balance_moves_biases_against_the_load(self) -> None:
        model = small_model()
        bias = model.model.layers[1].mlp.gate.e_score_correction_bias
        before = bias.clone()
        load = torch.tensor([9, 1] * 8)
        balance_gates(model, {1: load}, 0.01)
        torch.testing.assert_close(bias - before, torch.tensor([-0.01, 0.01] * 8))
