"""Statement 4: what share of attention one planted key gets at 4 K, 128 K and 1 M positions of
synthetic cache, dense beside sparse."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from tools.reference import presets
from tools.reference.attention import Attention, stable_top
from tools.reference.rope import Rotation
from tools.reference.weights import randomise
from tools.reference.model import ExpertMesh

CONTEXTS = (4096, 131_072, 1_048_576)
SELECTED = 2048
STRENGTHS = (0.4, 0.6, 0.8, 1.0)   # of the planted key, 1: as long as a key of the cache


@dataclasses.dataclass(frozen=True)
class Planted:
    """One head's view of one planted key."""

    context: int
    strength: float
    rank: int               # by the indexer's score, 0 = first
    dense_p: float
    dense_bound: float      # 1 / (1 + (n − 1)·e^−Δ)
    sparse_p: float         # 0 if it was not selected
    sparse_bound: float     # 1 / (1 + (m − 1)·e^−Δ), Δ over the other selected keys
    entropy: float          # of the sparse attention, nats; at most ln m


def _bound(others: int, gap: float) -> float:
    return 1 / (1 + others * math.exp(-gap)) if gap > -700 else 0.0


def _attention(seed: int) -> Attention:
    """Layer 0 of `demo` with random weights, selecting SELECTED positions of up to 2^20 + 1."""
    config = presets.preset("demo", index_topk=SELECTED, num_hidden_layers=1, engram_layer_ids=[],
                            max_position_embeddings=2 * CONTEXTS[-1])
    return randomise(ExpertMesh(config), seed).model.layers[0].self_attn


def _queries(attention: Attention, position: int, draw: torch.Generator) -> tuple[Tensor, ...]:
    """(query of head 0 over latent and rope dims, index queries [nI, dI], their weights [nI])."""
    x = torch.randn(1, 1, attention.q_a_proj.weight.shape[1], generator=draw)
    rotation = Rotation(torch.tensor([position]).numpy(), 1e4, attention.rope, None, torch.float32)
    cq = attention.q_a_layernorm(attention.q_a_proj(x))
    query = attention.q_b_proj(cq).unflatten(-1, (attention.heads, attention.nope + attention.rope))
    nope, rope = query.split((attention.nope, attention.rope), -1)
    width = attention.nope + attention.value
    up = attention.kv_b_proj.weight.unflatten(0, (attention.heads, width))
    absorbed = torch.einsum("bthn,hnr->bthr", nope, up[:, :attention.nope])
    own = torch.cat((absorbed, rotation(rope)), -1)[0, 0, 0] * attention.scale
    indexer = attention.indexer
    assert indexer is not None
    index = rotation(indexer.wq_b(cq).unflatten(-1, (indexer.heads, indexer.dim)),
                     indexer.interleaved)[0, 0]
    return own, index, indexer.weights_proj(x)[0, 0] * indexer.heads**-0.5


@torch.no_grad()
def plant(context: int, strength: float, seed: int = 0) -> Planted:
    """One key of `context` points along the query; the others are random."""
    draw = torch.Generator().manual_seed(seed)
    attention = _attention(seed)
    query, index_query, weight = _queries(attention, context, draw)
    keys = torch.randn(context, query.shape[0], generator=draw)
    index_keys = torch.randn(context, index_query.shape[1], generator=draw)
    place = context // 3
    keys[place] = strength * math.sqrt(query.shape[0]) * query / query.norm()
    along = (weight.clamp(min=0)[:, None] * index_query).sum(0)
    index_keys[place] = strength * math.sqrt(along.shape[0]) * along / along.norm()
    logits = (keys @ query).double()
    scores = (weight * (index_keys @ index_query.T).relu()).sum(-1)
    chosen = stable_top(scores, min(SELECTED, context)).sort().values
    rank = int((scores > scores[place]).sum())
    others = torch.cat((logits[:place], logits[place + 1:]))
    dense = float(logits.softmax(-1)[place])
    selected = bool((chosen == place).any())
    sparse = logits[chosen].softmax(-1)
    rest = logits[chosen[chosen != place]]
    return Planted(
        context, strength, rank, dense, _bound(context - 1, float(logits[place] - others.max())),
        float(sparse[chosen == place]) if selected else 0.0,
        _bound(len(rest), float(logits[place] - rest.max())) if selected else 0.0,
        float(-(sparse * sparse.clamp(min=1e-300).log()).sum()))
