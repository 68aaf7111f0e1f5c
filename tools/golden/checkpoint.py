"""Random checkpoints of the published families, as ordinary Hugging Face directories.

Names and shapes are those of docs/formats.md §1.2, §1.6 and docs/model-family.md §3; values follow
"Random weights" of docs/model-family.md §6, so that no mechanism is near its neutral point.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from . import goldenfile

Config = dict[str, Any]
Tensors = dict[str, torch.Tensor]
_HEADER_ALIGN = 64  # more than the 8 of the usual writer
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def full_layers(config: Config) -> list[bool]:
    """Which layers have an indexer of their own (docs/model-family.md §2, indexer_types)."""
    layers = config["num_hidden_layers"]
    if config["model_type"] == "deepseek_v3":
        return [False] * layers
    types = config.get("indexer_types")
    if types is not None:
        return [kind == "full" for kind in types]
    freq, offset = config.get("index_topk_freq", 1), config.get("index_skip_topk_offset", 2)
    return [max(i - offset + 1, 0) % freq == 0 for i in range(layers)]


def _attention_shapes(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    query = config["q_lora_rank"]
    latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
    if query is None:
        yield "q_proj.weight", (heads * (nope + rope), width)
    else:
        yield "q_a_proj.weight", (query, width)
        yield "q_a_layernorm.weight", (query,)
        yield "q_b_proj.weight", (heads * (nope + rope), query)
    yield "kv_a_proj_with_mqa.weight", (latent + rope, width)
    yield "kv_a_layernorm.weight", (latent,)
    yield "kv_b_proj.weight", (heads * (nope + value), latent)
    yield "o_proj.weight", (width, heads * value)
    if config["attention_bias"]:
        if query is not None:
            yield "q_a_proj.bias", (query,)
        yield "kv_a_proj_with_mqa.bias", (latent + rope,)
        yield "o_proj.bias", (width,)


def _indexer_shapes(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    heads, size = config["index_n_heads"], config["index_head_dim"]
    yield "wq_b.weight", (heads * size, config["q_lora_rank"])
    yield "wk.weight", (size, config["hidden_size"])
    yield "k_norm.weight", (size,)
    yield "k_norm.bias", (size,)
    yield "weights_proj.weight", (heads, config["hidden_size"])


def _swiglu_shapes(prefix: str, width: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}gate_proj.weight", (inner, width)
    yield f"{prefix}up_proj.weight", (inner, width)
    yield f"{prefix}down_proj.weight", (width, inner)


def _ffn_shapes(config: Config, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = config["hidden_size"], config["moe_intermediate_size"]
    if layer < config["first_k_dense_replace"]:
        yield from _swiglu_shapes("", width, config["intermediate_size"])
        return
    yield "gate.weight", (config["n_routed_experts"], width)
    yield "gate.e_score_correction_bias", (config["n_routed_experts"],)
    for expert in range(config["n_routed_experts"]):
        yield from _swiglu_shapes(f"experts.{expert}.", width, inner)
    yield from _swiglu_shapes("shared_experts.", width, inner * config["n_shared_experts"])


def shapes(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor of a model."""
    width, vocab = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocab, width)
    for layer, full in enumerate(full_layers(config)):
        prefix = f"model.layers.{layer}."
        yield f"{prefix}input_layernorm.weight", (width,)
        yield f"{prefix}post_attention_layernorm.weight", (width,)
        for name, shape in _attention_shapes(config):
            yield f"{prefix}self_attn.{name}", shape
        if full:
            for name, shape in _indexer_shapes(config):
                yield f"{prefix}self_attn.indexer.{name}", shape
        for name, shape in _ffn_shapes(config, layer):
            yield f"{prefix}mlp.{name}", shape
    yield "model.norm.weight", (width,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, width)


def randomise(config: Config, rng: np.random.Generator, dtype: torch.dtype, *,
              gate_bias: float = 0.0, embedding_scale: float = 1.0) -> Tensors:
    """Weights of `dtype` (the gate's bias F32). `gate_bias` is added to every gate bias."""
    tensors: Tensors = {}
    for name, shape in shapes(config):
        values = rng.standard_normal(shape)
        if name.endswith("e_score_correction_bias"):
            tensors[name] = torch.from_numpy(0.1 * values + gate_bias).float()
            continue
        if name.endswith("norm.weight"):
            values = 1.0 + 0.1 * values
        elif name.endswith(".bias"):
            values = 0.1 * values
        elif name.endswith("embed_tokens.weight"):
            values = embedding_scale * values
        else:
            values = values / math.sqrt(shape[-1])
        tensors[name] = torch.from_numpy(values).to(dtype)
    return tensors


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """One file: bytes in the order of `tensors`, the header in reverse order, with metadata and
    padded with spaces."""
    entries, blobs, at = {}, [], 0
    for name, tensor in tensors.items():
        blobs.append(_bytes(tensor))
        entries[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape),
                         "data_offsets": [at, at + len(blobs[-1])]}
        at += len(blobs[-1])
    ordered = {"__metadata__": {"format": "pt"}}
    ordered |= {name: entries[name] for name in reversed(list(entries))}
    header = json.dumps(ordered).encode()
    header += b" " * (-(len(header) + 8) % _HEADER_ALIGN)
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(blobs))


def read(folder: Path) -> tuple[Config, Tensors]:
    """config.json and the tensors of a directory, as stored."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return config, tensors


def write_plain(folder: Path, config: Config, tensors: Tensors) -> None:
    """config.json and model.safetensors."""
    folder.mkdir(parents=True)
    goldenfile.write_json(folder / "config.json", config)
    write_safetensors(folder / "model.safetensors", tensors)


def write_sharded(folder: Path, config: Config, tensors: Tensors, rng: np.random.Generator,
                  shards: int = 3) -> None:
    """The same with tensors shuffled over several files and an index."""
    folder.mkdir(parents=True)
    goldenfile.write_json(folder / "config.json", config)
    names = sorted(tensors)
    rng.shuffle(names)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        chosen = names[shard::shards]
        write_safetensors(folder / file, {name: tensors[name] for name in chosen})
        weight_map |= dict.fromkeys(chosen, file)
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    goldenfile.write_json(folder / "model.safetensors.index.json",
                          {"metadata": {"total_size": total}, "weight_map": weight_map})


def mix_dtypes(tensors: Tensors, rng: np.random.Generator) -> Tensors:
    """The same model in F32, BF16 and F16 at random; the gate's bias stays F32."""
    kinds = (torch.float32, torch.bfloat16, torch.float16)
    return {name: value if name.endswith("e_score_correction_bias")
            else value.to(kinds[rng.integers(3)]) for name, value in tensors.items()}
