"""Streams and memory: Sinkhorn, the order inside a layer, pitfalls 1, 2, 3 and 5."""

import math
import unittest

import torch

from tools.reference.engram import gate
from tools.reference.residual import HyperConnection, sinkhorn
from tools.reference.tests.small import deviation, random_tokens, small_model


class SinkhornTest(unittest.TestCase):
    def test_constants(self) -> None:
        logits = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, -1, .5, 0], [-2, 0, 2, 1]],
                              dtype=torch.float64)
        expected = torch.tensor([
            [.031032, .201145, .183312, .58451], [.492091, .431687, .053244, .022977],
            [.464546, .149921, .225263, .160269], [.01233, .217246, .53818, .232242]])
        p = sinkhorn(logits, 20, 1e-6)
        self.assertLess(float((p - expected).abs().max()), 6e-7)
        self.assertLess(float((p.sum(0) - 0.999999).abs().max()), 1e-6)
        self.assertAlmostEqual(float(torch.linalg.matrix_norm(p, 2)), 0.999999, places=6)

    def test_columns_are_exact_and_rows_are_free(self) -> None:
        generator = torch.Generator().manual_seed(1)
        for spread in (1.0, 8.0, 100.0):
            p = sinkhorn(spread * torch.randn(2000, 4, 4, generator=generator), 20, 1e-6)
            self.assertLess(float((p.sum(-2) - 1).abs().max()), 1e-5)
            rows = float((p.sum(-1) - 1).abs().max())
            self.assertTrue(rows < 5e-3 if spread == 1.0 else rows > 1e-2, rows)


class HyperConnectionTest(unittest.TestCase):
    """One sublayer in plain Python, for four unequal streams."""

    def setUp(self) -> None:
        self.enterContext(torch.no_grad())
        torch.manual_seed(3)
        self.n, self.d, self.eps = 4, 6, 1e-3
        self.hc = HyperConnection(self.n, self.d, 20, 1e-6, self.eps).double()
        for parameter in self.hc.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        self.x = torch.randn(1, 1, self.n, self.d, dtype=torch.float64)

    def by_hand(self) -> tuple[list[float], list[float], list[list[float]]]:
        n, d = self.n, self.d
        flat = [float(self.x[0, 0, i, c]) for i in range(n) for c in range(d)]
        rinv = 1 / math.sqrt(sum(v * v for v in flat) / (n * d) + self.eps)
        m = [rinv * sum(w * v for w, v in zip(row, flat)) for row in self.hc.fn.tolist()]
        base, scale = self.hc.base.tolist(), self.hc.scale.tolist()

        def sigmoid(z: float) -> float:
            return 1 / (1 + math.exp(-z))

        pre = [sigmoid(m[i] * scale[0] + base[i]) + 1e-6 for i in range(n)]
        post = [2 * sigmoid(m[n + i] * scale[1] + base[n + i]) for i in range(n)]
        p = []
        for i in range(n):
            at = [2 * n + n * i + j for j in range(n)]
            grown = [math.exp(m[a] * scale[2] + base[a]) for a in at]
            p.append([g / sum(grown) + 1e-6 for g in grown])
        for turn in range(39):
            for line in range(n):
                cells = [(i, line) for i in range(n)] if turn % 2 == 0 else \
                    [(line, j) for j in range(n)]
                total = sum(p[i][j] for i, j in cells) + 1e-6
                for i, j in cells:
                    p[i][j] /= total
        return pre, post, p

    def test_mixes_collapse_and_spread(self) -> None:
        pre, post, p = self.by_hand()
        mixes = self.hc.mixes(self.x)
        y = torch.randn(1, 1, self.d, dtype=torch.float64)
        u, spread = self.hc.collapse(self.x, mixes), self.hc.spread(self.x, y, mixes)
        for c in range(self.d):
            x = [float(self.x[0, 0, i, c]) for i in range(self.n)]
            self.assertAlmostEqual(float(u[0, 0, c]), sum(a * b for a, b in zip(pre, x)))
            for j in range(self.n):
                expected = post[j] * float(y[0, 0, c]) + sum(p[i][j] * x[i] for i in range(self.n))
                self.assertAlmostEqual(float(spread[0, 0, j, c]), expected)

    def test_untransposed_is_something_else(self) -> None:
        mixes, y = self.hc.mixes(self.x), torch.zeros(1, 1, self.d, dtype=torch.float64)
        right = self.hc.spread(self.x, y, mixes)
        self.assertGreater(deviation(right, mixes.comb @ self.x), 0.05)

    def test_one_hot_mixes_are_a_plain_residual(self) -> None:
        self.hc.fn.zero_()
        self.hc.base.fill_(-40.0)
        self.hc.base[0], self.hc.base[self.n] = 40.0, 0.0
        self.hc.base[2 * self.n:].view(4, 4).fill_diagonal_(40.0)
        mixes, y = self.hc.mixes(self.x), torch.randn(1, 1, self.d, dtype=torch.float64)
        spread = self.hc.spread(self.x, y, mixes)
        self.assertLess(float((self.hc.collapse(self.x, mixes) - self.x[:, :, 0]).abs().max()),
                        1e-4)
        self.assertLess(float((spread[:, :, 0] - self.x[:, :, 0] - y).abs().max()), 1e-4)
        self.assertLess(float((spread[:, :, 1:] - self.x[:, :, 1:]).abs().max()), 1e-4)


class HeadTest(unittest.TestCase):
    def test_collapse_then_norm(self) -> None:
        self.enterContext(torch.no_grad())
        model = small_model().double()
        x = torch.randn(1, 1, 4, 32, dtype=torch.float64)
        head, flat = model.model.hc_head, x.flatten()
        m = head.hc_fn @ flat / (flat.square().mean() + 1e-3).sqrt()
        w = torch.sigmoid(m * head.hc_scale[0] + head.hc_base) + 1e-6
        u = sum(w[i] * x[0, 0, i] for i in range(4))
        u = model.model.norm.weight * u / (u.square().mean() + 1e-3).sqrt()
        torch.testing.assert_close(model.head(x)[0, 0], model.lm_head.weight @ u)


class LayerOrderTest(unittest.TestCase):
    def test_memory_comes_before_the_mixes(self) -> None:
        """Layer 1 with memory = layer 1 without it, of streams to which g·V was added."""
        model, tokens = small_model().double(), random_tokens(12)
        out = model(tokens, records=("hidden", "mixes"))
        before = out.records["hidden"][0]
        memory = model.model.layers[1].engram
        classes, history = model._classes(tokens), model.new_cache().history
        added = memory(before, classes, history)
        cache = model.new_cache()
        step = model._step(12, cache, ("mixes",), False, False)
        model.model.layers[1].engram = None
        after, _ = model.model.layers[1](added, classes, history, step, cache.layers[1], None)
        self.assertLess(deviation(out.records["hidden"][1], after), 1e-12)
        torch.testing.assert_close(out.records["mixes"][1],
                                   model.model.layers[1].attn_hc.mixes(added).comb)
        off = model(tokens, records=("hidden",))
        self.assertGreater(deviation(out.records["hidden"][1], off.records["hidden"][1]), 0.05)

    def test_latent_norms_have_their_own_eps(self) -> None:
        """The mistake shows above the tolerance of the page, 2e-4 σ, even if no selection flips."""
        model, tokens = small_model(), random_tokens(48)
        right = model(tokens).logits
        for eps, names in ((1e-3, ("q_a_layernorm", "kv_a_layernorm")),
                           (1e-6, ("input_layernorm", "post_attention_layernorm"))):
            wrong = small_model()
            for name, module in wrong.named_modules():
                if name.endswith(names):
                    self.assertNotEqual(module.eps, eps)
                    module.eps = eps
            self.assertGreater(deviation(right, wrong(tokens).logits), 4e-4)


class EngramGateTest(unittest.TestCase):
    def test_values(self) -> None:
        d = torch.tensor([0.0, -0.0, 4.0, -4.0, 1e-9, -1e-9], dtype=torch.float64)
        expected = [1 / (1 + math.exp(-z)) for z in (1e-3, 1e-3, 2, -2, 1e-3, -1e-3)]
        for got, want in zip(gate(d).tolist(), expected):
            self.assertAlmostEqual(got, want, places=12)

    def test_delta_by_hand(self) -> None:
        model = small_model().double()
        memory, n, hidden = model.model.layers[1].engram, 4, 32
        x = torch.randn(1, 1, n, hidden, dtype=torch.float64)
        e = torch.randn(1, 1, 32, dtype=torch.float64)
        projected = memory.wkv.weight @ e[0, 0]
        value = projected[n * hidden:]
        delta = memory.delta(x, e)
        for i in range(n):
            key, own = projected[i * hidden:(i + 1) * hidden], x[0, 0, i]
            d = (own * memory.q_weight[i] * memory.k_weight[i] * key).sum() / math.sqrt(hidden)
            d = d / (own.square().mean() + 1e-3).sqrt() / (key.square().mean() + 1e-3).sqrt()
            g = torch.sigmoid(torch.sign(d) * d.abs().sqrt())
            torch.testing.assert_close(delta[0, 0, i], g * value)
