"""Selections: ties, shared layers, dense against sparse, pitfalls 4, 6, 7 and 9."""

import unittest

import torch

from tools.reference.attention import list_positions, select_positions, stable_top
from tools.reference.tests.small import deviation, random_tokens, small_model


class TopTest(unittest.TestCase):
    def test_equal_scores_lower_index_first(self) -> None:
        scores = torch.tensor([0.0, -0.0, 1.0, 0.0, 1.0, -1.0])
        self.assertEqual(stable_top(scores, 4).tolist(), [2, 4, 0, 1])
        self.assertEqual(stable_top(torch.zeros(500), 16).tolist(), list(range(16)))

    def test_not_a_number_is_an_error(self) -> None:
        with self.assertRaises(ValueError):
            stable_top(torch.tensor([0.0, float("nan")]), 1)

    def test_future_positions_are_never_selected(self) -> None:
        visible = torch.ones(6, 6).tril().bool()
        chosen = select_positions(torch.randn(1, 6, 6), visible, 4)
        self.assertEqual(chosen.sum(-1)[0].tolist(), [1, 2, 3, 4, 4, 4])
        self.assertFalse((chosen & ~visible).any())
        listed = list_positions(chosen, 4, 100)
        self.assertEqual(listed[0, 0].tolist(), [100, -1, -1, -1])
        self.assertEqual(listed[0, 5].tolist(),
                         [100 + s for s in range(6) if chosen[0, 5, s]])


class PositionsTest(unittest.TestCase):
    def test_dense_equals_sparse_when_all_fit(self) -> None:
        tokens = random_tokens(40)
        sparse, dense = small_model(index_topk=40), small_model(index_topk=39)
        whole = sparse(tokens).logits
        everything = dense(tokens, attend_all=True).logits
        self.assertLess(deviation(whole, everything), 1e-5)
        self.assertGreater(deviation(whole, small_model(index_topk=8)(tokens).logits), 1e-2)

    def test_no_indexer_at_all(self) -> None:
        sparse, dense = small_model(index_topk=40), small_model(index_topk=None)
        own = sparse.state_dict()
        dense.load_state_dict({name: own[name] for name in dense.state_dict()})
        self.assertFalse(any("indexer" in name for name in dense.state_dict()))
        tokens = random_tokens(40)
        self.assertLess(deviation(sparse(tokens).logits, dense(tokens).logits), 1e-5)

    def test_all_zero_indexer_selects_the_lowest_positions(self) -> None:
        model = small_model()
        for layer in (0, 1, 3):
            torch.nn.init.zeros_(model.model.layers[layer].self_attn.indexer.weights_proj.weight)
        positions = model(random_tokens(20), records=("positions",)).records["positions"]
        self.assertEqual(sorted(positions), [0, 1, 3])
        for t in range(20):
            expected = [s if s < min(8, t + 1) else -1 for s in range(8)]
            self.assertEqual(positions[3][0, t].tolist(), expected)

    def test_shared_layers_attend_where_the_full_layer_below_does(self) -> None:
        names = ("attention", "positions")
        records = small_model()(random_tokens(40), records=names).records
        for layer, source in enumerate((0, 1, 1, 3, 3)):
            attended = records["attention"][layer][0] > 0
            expected = torch.zeros_like(attended)
            for t, own in enumerate(records["positions"][source][0].tolist()):
                expected[t, [s for s in own if s >= 0]] = True
            self.assertTrue(torch.equal(attended, expected), layer)
        self.assertFalse(torch.equal(records["positions"][1], records["positions"][3]))

    def test_rope_of_the_indexer(self) -> None:
        """4,096 tokens: the other pairing, or the last dims, selects other positions."""
        tokens = random_tokens(4096)
        shape = {"num_hidden_layers": 1, "engram_layer_ids": [], "index_topk": 64}
        with torch.no_grad():
            model = small_model(**shape)
            right = model(tokens, records=("positions",)).records["positions"][0]
            other = small_model(**shape, indexer_rope_interleave=False)
            flipped = other(tokens, records=("positions",)).records["positions"][0]
            indexer = model.model.layers[0].self_attn.indexer
            indexer.wq_b.weight.copy_(indexer.wq_b.weight.unflatten(0, (4, 16)).flip(1).flatten(
                0, 1))
            for tensor in (indexer.wk.weight, indexer.k_norm.weight, indexer.k_norm.bias):
                tensor.copy_(tensor.flip(0))
            last = model(tokens, records=("positions",)).records["positions"][0]
        self.assertFalse(torch.equal(right, flipped))
        self.assertFalse(torch.equal(right, last))

    def test_keys_have_a_layer_norm_with_bias(self) -> None:
        tokens = random_tokens(64)
        right = small_model()(tokens, records=("positions",)).records["positions"][0]
        model = small_model()
        torch.nn.init.zeros_(model.model.layers[0].self_attn.indexer.k_norm.bias)
        wrong = model(tokens, records=("positions",)).records["positions"][0]
        self.assertFalse(torch.equal(right, wrong))

    def test_index_scores_by_hand(self) -> None:
        model, tokens = small_model().double(), random_tokens(9)
        out = model(tokens, records=("index_scores",))
        attention = model.model.layers[0].self_attn
        x = model.model.embed_tokens(tokens)[:, :, None].expand(-1, -1, 4, -1)
        hc = model.model.layers[0].attn_hc
        x = model.model.layers[0].input_layernorm(hc.collapse(x, hc.mixes(x)))[0]
        cq = attention.q_a_layernorm(attention.q_a_proj(x))
        turn = model._step(9, model.new_cache(), (), False, False).rotation
        indexer = attention.indexer
        key = indexer.wk(x)
        key = (key - key.mean(-1, keepdim=True)) / (key.var(-1, correction=0, keepdim=True)
                                                    + 1e-6).sqrt()
        key = turn((key * indexer.k_norm.weight + indexer.k_norm.bias)[None])[0]
        for t in (0, 4, 8):
            for s in range(t + 1):
                total = 0.0
                for head in range(4):
                    rows = slice(16 * head, 16 * head + 16)
                    query = turn((cq @ indexer.wq_b.weight[rows].T)[None])[0, t]
                    weight = float(indexer.weights_proj.weight[head] @ x[t]) * 4**-0.5
                    total += weight * max(float(query @ key[s]), 0.0) * 16**-0.5
                self.assertAlmostEqual(total, float(out.records["index_scores"][0][0, t, s]))


class GateTest(unittest.TestCase):
    def test_bias_selects_but_does_not_weigh(self) -> None:
        model = small_model()
        gate = model.model.layers[1].mlp.gate
        with torch.no_grad():
            gate.e_score_correction_bias[11] += 10.0
        x = torch.randn(5, 32)
        ids, weight, _ = gate(x)
        self.assertTrue((ids == 11).any(-1).all())
        s = torch.sigmoid(x @ gate.weight.T).gather(-1, ids)
        torch.testing.assert_close(weight, 2.5 * s / s.sum(-1, keepdim=True))
        torch.testing.assert_close(weight.sum(-1), torch.full((5,), 2.5))

    def test_equal_gate_takes_the_lowest_ids(self) -> None:
        model = small_model()
        gate = model.model.layers[1].mlp.gate
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.zeros_(gate.e_score_correction_bias)
        self.assertEqual(gate(torch.randn(3, 32))[0].tolist(), [[0, 1, 2, 3]] * 3)

    def test_the_weight_multiplies_the_output_of_down(self) -> None:
        experts = small_model().model.layers[1].mlp.experts
        x, ids, weight = torch.randn(1, 32), torch.tensor([[3]]), torch.tensor([[0.7]])
        inner = torch.nn.functional.silu(experts.gate_proj[3] @ x[0]) * (experts.up_proj[3] @ x[0])
        expected = 0.7 * (experts.down_proj[3] @ inner)
        torch.testing.assert_close(experts.one_by_one(x, ids, weight)[0], expected)

    def test_all_at_once_equals_one_by_one(self) -> None:
        model, tokens = small_model(), random_tokens(50, lanes=2)
        names = ("experts", "expert_load", "hidden")
        sparse = model(tokens, records=names)
        dense = model(tokens, records=names, dense_experts=True)
        self.assertLess(deviation(sparse.logits, dense.logits), 1e-5)
        for layer in range(1, 5):
            self.assertTrue(torch.equal(sparse.records["experts"][layer],
                                        dense.records["experts"][layer]))
            load = sparse.records["expert_load"][layer]
            self.assertEqual(int(load.sum()), 100 * 4)
            self.assertEqual(load.tolist(), [
                int((sparse.records["experts"][layer] == e).sum()) for e in range(16)])
