"""The absorbed form of the page against attention with keys and values per head."""

import unittest

import torch

from tools.reference.tests.small import small_model


class AttentionTest(unittest.TestCase):
    def test_absorbed_equals_naive(self) -> None:
        model = small_model(index_topk=None).double()
        attention = model.model.layers[0].self_attn
        cache, x = model.new_cache(), torch.randn(1, 17, 32, dtype=torch.float64)
        step = model._step(17, cache, (), False, False)
        y, _ = attention(x, step, cache.layers[0], None)
        cq = attention.q_a_layernorm(attention.q_a_proj(x))
        query = attention.q_b_proj(cq)[0].view(17, 4, 20)
        latent, key = attention.kv_a_proj_with_mqa(x).split((16, 8), -1)
        both = attention.kv_b_proj(attention.kv_a_layernorm(latent))[0].view(17, 4, 32)
        key = step.rotation(key)[0]
        turned = step.rotation(query[None, :, :, 12:])[0]
        heads = []
        for head in range(4):
            score = query[:, head, :12] @ both[:, head, :12].T + turned[:, head] @ key.T
            score = (score / 20**0.5).masked_fill(~step.visible, -torch.inf)
            heads.append(score.softmax(-1) @ both[:, head, 12:])
        expected = torch.cat(heads, -1) @ attention.o_proj.weight.T
        torch.testing.assert_close(y[0], expected)
