"""config.json: defaults, derived lists, refusals that name key and value."""

import json
import unittest

from tools.reference.config import ConfigError, parse, to_json
from tools.reference.presets import NAMES, preset


class ConfigTest(unittest.TestCase):
    def setUp(self) -> None:
        self.raw = to_json(preset("tiny"))

    def refuse(self, key: str, value: object, named: str | None = None) -> None:
        with self.assertRaises(ConfigError) as caught:
            parse(self.raw | {key: value})
        self.assertEqual(caught.exception.key, named or key)
        self.assertIn(named or key, str(caught.exception))
        if named is None:
            self.assertIn(json.dumps(value), str(caught.exception))

    def test_what_is_written_is_read_again(self) -> None:
        for name in NAMES:
            config = preset(name)
            self.assertEqual(parse(json.loads(json.dumps(to_json(config)))), config)

    def test_yarn_is_written_and_read_again(self) -> None:
        config = preset("tiny", rope_scaling={
            "type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "mscale": 1})
        self.assertEqual(parse(to_json(config)), config)

    def test_defaults(self) -> None:
        required = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                    "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
                    "v_head_dim", "max_position_embeddings", "intermediate_size",
                    "n_routed_experts", "moe_intermediate_size"}
        raw = {key: self.raw[key] for key in required} | {"index_topk": None, "unknown": 1}
        config = parse(raw)
        self.assertEqual((config.rms_norm_eps, config.rope_theta, config.num_experts_per_tok),
                         (1e-6, 10000.0, 16))
        self.assertEqual((config.hc_mult, config.hc_sinkhorn_iters, config.hc_eps), (4, 20, 1e-6))
        self.assertEqual((config.first_k_dense_replace, config.n_shared_experts,
                          config.routed_scaling_factor), (1, 1, 2.5))
        self.assertEqual((config.engram_layer_ids, config.tie_word_embeddings), ((), False))
        for key in required | {"index_topk"}:
            with self.assertRaises(ConfigError) as caught:
                parse({name: value for name, value in raw.items() if name != key})
            self.assertEqual(caught.exception.key, key)

    def test_full_layers_are_derived(self) -> None:
        def full(name: str) -> list[int]:
            types = preset(name).indexer_types
            return [layer for layer, kind in enumerate(types) if kind == "full"]

        self.assertEqual(full("tiny"), [0, 1, 3])
        self.assertEqual(full("demo"), [0, 1, 3])
        self.assertEqual(full("bench-1b-full"), [0, 1, 2, 6, 10])
        self.assertEqual(full("1t"), [0, 1, *range(2, 55, 4)])
        self.assertEqual(len(full("1t")), 16)
        raw = {key: value for key, value in self.raw.items() if key != "indexer_types"}
        self.assertEqual(parse(raw).indexer_types, ("full",) * 5)

    def test_values_that_are_not_supported(self) -> None:
        for key, value in (
                ("model_type", "deepseek_v3"), ("rope_interleave", False), ("n_group", 2),
                ("scoring_func", "softmax"), ("topk_method", "greedy"), ("topk_group", 2),
                ("norm_topk_prob", False), ("num_key_value_heads", 2), ("q_lora_rank", None),
                ("qk_rope_head_dim", 7), ("hc_sinkhorn_iters", 2), ("hc_mult", 0),
                ("index_head_dim", 4), ("indexer_types", ["shared"] + ["full"] * 4),
                ("indexer_types", ["full"] * 4), ("engram_layer_ids", [3, 1]),
                ("engram_layer_ids", [1, 5]), ("engram_num_embeddings", [1650]),
                ("engram_max_ngram", 1), ("num_experts_per_tok", 33), ("vocab_size", 0),
                ("vocab_size", True), ("rms_norm_eps", 0), ("rope_scaling", {"type": "linear"}),
                ("torch_dtype", "float16"), ("engram_pad_token_id", 512),
                ("engram_pad_token_id", None), ("tie_word_embeddings", 1)):
            with self.subTest(key=key, value=value):
                self.refuse(key, value)
