"""One shot, chunks and single tokens give the same; float32 against float64."""

import unittest

import torch

from tools.reference.decode import greedy
from tools.reference.model import ExpertMesh
from tools.reference.presets import hash_data
from tools.reference.tests.small import deviation, random_tokens, small_model

VARIANTS = {
    "all": {}, "one stream": {"hc_mult": 1}, "no memory": {"engram_layer_ids": []},
    "dense attention": {"index_topk": None}, "half-split": {"indexer_rope_interleave": False},
    "tied": {"tie_word_embeddings": True}, "no shared expert": {"n_shared_experts": 0},
    "two dense layers": {"first_k_dense_replace": 2}, "experts only": {"first_k_dense_replace": 0},
    "4-grams": {"engram_max_ngram": 4, "engram_layer_ids": [0, 2, 4]},
}


def in_chunks(model: ExpertMesh, tokens: torch.Tensor, size: int, start: int = 0,
              names: tuple[str, ...] = ()) -> tuple[torch.Tensor, list[dict[int, torch.Tensor]]]:
    cache, logits, records = model.new_cache(tokens.shape[0], start), [], []
    for at in range(0, tokens.shape[1], size):
        out = model(tokens[:, at:at + size], cache, records=names)
        logits.append(out.logits)
        records += [out.records[name] for name in names]
    return torch.cat(logits, 1), records


class DecodeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(torch.no_grad())

    def test_chunks_equal_one_shot(self) -> None:
        tokens = random_tokens(45, lanes=2)
        for name, changes in VARIANTS.items():
            model = small_model(**changes)
            whole = model(tokens).logits
            for size in (1, 2, 3, 7):
                with self.subTest(variant=name, size=size):
                    self.assertLess(deviation(whole, in_chunks(model, tokens, size)[0]), 2e-5)

    def test_chunks_select_the_same(self) -> None:
        model, tokens = small_model(), random_tokens(45)
        whole = model(tokens, records=("positions",)).records["positions"]
        for size in (1, 2, 3, 7):
            parts = in_chunks(model, tokens, size, names=("positions",))[1]
            for layer in (0, 1, 3):
                joined = torch.cat([part[layer] for part in parts], 1)
                self.assertTrue(torch.equal(joined, whole[layer]))

    def test_decode_equals_prefill_of_the_same_tokens(self) -> None:
        model = small_model()
        decoded = greedy(model, random_tokens(13)[0].tolist(), 40, records=("hidden", "experts"))
        self.assertEqual(decoded.logits.shape, (53, 96))
        self.assertEqual(decoded.tokens[13:].tolist(), decoded.logits[12:52].argmax(-1).tolist())
        whole = model(decoded.tokens[None], records=("hidden", "experts"))
        self.assertLess(deviation(whole.logits[0], decoded.logits), 2e-5)
        for layer in range(5):
            self.assertLess(deviation(whole.records["hidden"][layer][0],
                                      decoded.record("hidden", layer)), 2e-5)
        self.assertTrue(torch.equal(whole.records["experts"][4][0], decoded.record("experts", 4)))

    def test_a_copied_cache_goes_its_own_way(self) -> None:
        model, tokens = small_model(), random_tokens(20)
        cache = model.new_cache()
        model(tokens[:, :12], cache)
        other = cache.copy()
        model(random_tokens(5, seed=9), other)
        self.assertEqual((cache.tokens, other.tokens), (12, 17))
        rest = model(tokens[:, 12:], cache).logits
        self.assertLess(deviation(model(tokens).logits[:, 12:], rest), 2e-5)

    def test_far_out(self) -> None:
        """Attention depends on distances alone, so a shifted sequence is nearly the same."""
        far = {"max_position_embeddings": 1_000_000}
        model, tokens = small_model(**far), random_tokens(64)
        near = model(tokens).logits
        shifted, positions = in_chunks(model, tokens, 32, 999_936, names=("positions",))
        self.assertLess(deviation(near, shifted), 1e-3)
        self.assertTrue(all(((part[0] >= 999_936) | (part[0] == -1)).all() for part in positions))
        self.assertGreater(int(positions[-1][0].max()), 999_990)
        with self.assertRaises(ValueError):
            model(random_tokens(65), model.new_cache(1, 999_936))

    def test_float64_is_close(self) -> None:
        model, tokens = small_model(), random_tokens(64)
        wide = ExpertMesh(model.config, hash_data(model.config))
        wide.load_state_dict(model.state_dict())
        self.assertLess(deviation(wide.double()(tokens).logits, model(tokens).logits), 1e-5)

    def test_lookback_reaches_over_the_edge(self) -> None:
        """Forgetting the two tokens before a chunk changes its first two rows of memory."""
        model, tokens = small_model(), random_tokens(20)
        cache = model.new_cache()
        model(tokens[:, :10], cache)
        lost = cache.copy()
        lost.history = model.new_cache().history
        right, wrong = model(tokens[:, 10:], cache).logits, model(tokens[:, 10:], lost).logits
        self.assertGreater(deviation(right, wrong), 1e-2)
