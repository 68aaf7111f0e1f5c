"""Statement 3: how large streams get, against what the weights alone allow."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from tools.reference.attention import Attention
from tools.reference.feed_forward import FeedForward, MixtureOfExperts
from tools.reference.model import ExpertMesh, Layer


@dataclasses.dataclass(frozen=True)
class LayerNorms:
    """max_j ‖X_j‖ behind a layer."""

    layer: int
    measured: float
    bound: float


def _spectral(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.detach().double(), ord=2))


def attention_bound(attention: Attention) -> float:
    """B_a: attention output is a convex mix of values of normalised latents."""
    width = attention.nope + attention.value
    up = attention.kv_b_proj.weight.unflatten(0, (attention.heads, width))
    values = up[:, attention.nope:]
    heads = sum(_spectral(one)**2 for one in values)**0.5
    latent = float(attention.kv_a_layernorm.weight.detach().abs().max()) * attention.rank**0.5
    return _spectral(attention.o_proj.weight) * heads * latent


def _swiglu(gate: Tensor, up: Tensor, down: Tensor, inputs: float) -> float:
    """‖down(silu(g) ⊙ u)‖ ≤ ‖down‖·‖gate‖·‖up‖·‖x‖², since |silu(g)| ≤ |g|."""
    return _spectral(gate) * _spectral(up) * _spectral(down) * inputs


def feed_forward_bound(layer: Layer) -> float:
    """B_f: the input is normalised, ‖x‖² ≤ D·max|w|²."""
    weight = layer.post_attention_layernorm.weight.detach()
    inputs = weight.numel() * float(weight.abs().max())**2
    mlp = layer.mlp
    if isinstance(mlp, FeedForward):
        return _swiglu(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight, inputs)
    assert isinstance(mlp, MixtureOfExperts)
    own = mlp.experts
    routed = max(_swiglu(own.gate_proj[e], own.up_proj[e], own.down_proj[e], inputs)
                 for e in range(own.gate_proj.shape[0]))
    shared = mlp.shared_experts
    return mlp.gate.factor * routed + (0.0 if shared is None else _swiglu(
        shared.gate_proj.weight, shared.up_proj.weight, shared.down_proj.weight, inputs))


def memory_bound(layer: Layer) -> float:
    """B_e = max ‖W_V e‖ over what the rows can be; 0 without a memory."""
    engram = layer.engram
    if engram is None:
        return 0.0
    hidden = engram.wkv.weight.shape[0] // (engram.streams + 1)
    rows = float(engram.embed.weight.detach().norm(dim=-1).max())
    columns = engram.wkv.weight.shape[1] // engram.embed.weight.shape[1]
    return _spectral(engram.wkv.weight[-hidden:]) * rows * columns**0.5


@torch.no_grad()
def norms(model: ExpertMesh, tokens: Tensor) -> list[LayerNorms]:
    """Measured and allowed, layer by layer, for token ids [B, T]."""
    hidden = model(tokens, records=("hidden",)).records["hidden"]
    bound = float(model.model.embed_tokens.weight.norm(dim=-1).max())
    found = []
    for i, layer in enumerate(model.model.layers):
        bound += 2 * attention_bound(layer.self_attn) + 2 * feed_forward_bound(layer)
        bound += memory_bound(layer)
        found.append(LayerNorms(i, float(hidden[i].norm(dim=-1).max()), bound))
    return found
