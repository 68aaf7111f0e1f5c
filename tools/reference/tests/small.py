"""Small models for the tests, with every mechanism on."""

from __future__ import annotations

from typing import Any

import torch

from tools.reference.checkpoint import new_model
from tools.reference.model import ExpertMesh
from tools.reference.presets import preset
from tools.reference.weights import randomise

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "qk_nope_head_dim": 12, "v_head_dim": 20,
    "q_lora_rank": 48, "kv_lora_rank": 16, "intermediate_size": 64, "n_routed_experts": 16,
    "num_experts_per_tok": 4, "moe_intermediate_size": 16, "engram_vocab_size": 100,
    "engram_num_classes": 48, "engram_head_dim": 8, "max_position_embeddings": 8192,
}


def small_model(seed: int = 0, **changes: Any) -> ExpertMesh:
    """`tiny` made smaller, with random weights."""
    return randomise(new_model(preset("tiny", **(SMALL | changes))), seed)


def random_tokens(count: int, vocab_size: int = 96, lanes: int = 1, seed: int = 7) -> torch.Tensor:
    """int64 [lanes, count]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (lanes, count), generator=generator)


def deviation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, in standard deviations of `a`."""
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / a.std())
