"""Hugging Face directories of the family: config.json and safetensors (docs/model-family.md §3).

Read and written: F32 and BF16 tensors, and Engram tables in F8_E4M3 with F8_E8M0 scales. The
other quantised forms are for the runtime; here they are an error that names the tensor.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import config as config_module
from .config import Config
from .hashing import HashData, HashTable, check_tables
from .model import ExpertMesh
from .presets import hash_data

_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_STACKED = re.compile(r"(.*\.mlp\.experts\.)(gate_proj|up_proj|down_proj)$")
_ALWAYS_F32 = re.compile(r"\.(attn_hc|ffn_hc|hc_head)\.|\.e_score_correction_bias$")
_FP8_GROUP = 32
_FP8_MAX = 448.0
_E8M0_BIAS = 127


class CheckpointError(ValueError):
    """A tensor that is missing or not as expected; the message names it and both sides."""


def quantise_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """(F8_E4M3 [rows, de], F8_E8M0 [rows, ⌈de/32⌉]); scales are powers of two, rounded up."""
    rows, width = table.shape
    padded = torch.nn.functional.pad(table.float(), (0, -width % _FP8_GROUP))
    groups = padded.unflatten(-1, (-1, _FP8_GROUP))
    mantissa, exponent = torch.frexp(groups.abs().amax(-1).clamp(min=1e-30) / _FP8_MAX)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)  # exact powers stay
    values = torch.ldexp(groups, -exponent[..., None]).flatten(-2)[:, :width]
    scale = (exponent + _E8M0_BIAS).to(torch.uint8).view(torch.float8_e8m0fnu)
    return values.to(torch.float8_e4m3fn), scale


def widen_rows(values: Tensor, scale: Tensor) -> Tensor:
    """The float32 table of an F8_E4M3 one."""
    exponent = scale.view(torch.uint8).to(torch.int32) - _E8M0_BIAS
    spread = exponent.repeat_interleave(_FP8_GROUP, -1)[:, :values.shape[1]]
    return torch.ldexp(values.float(), spread)


def tensors_of(model: ExpertMesh, dtype: torch.dtype = torch.float32,
               fp8_tables: bool = False) -> dict[str, Tensor]:
    """The tensors of the checkpoint of `model`: names, shapes and dtypes of §3."""
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        stacked = _STACKED.fullmatch(name)
        if not value.is_floating_point():
            tensors[name] = value
        elif stacked:
            for expert, matrix in enumerate(value):
                own = f"{stacked[1]}{expert}.{stacked[2]}.weight"
                tensors[own] = matrix.to(dtype)
        elif _ALWAYS_F32.search(name):
            tensors[name] = value.float()
        elif fp8_tables and name.endswith(".engram.embed.weight"):
            tensors[name], tensors[name.removesuffix("weight") + "scale"] = quantise_rows(value)
        else:
            tensors[name] = value.to(dtype)
    return {name: value.contiguous().clone() for name, value in tensors.items()}


def save(folder: Path, model: ExpertMesh, dtype: torch.dtype = torch.float32,
         fp8_tables: bool = False) -> None:
    """Writes config.json and model.safetensors into `folder` (made if needed)."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = config_module.to_json(model.config)
    raw["torch_dtype"] = str(dtype).removeprefix("torch.")
    text = json.dumps(raw, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    save_file(tensors_of(model, dtype, fp8_tables), folder / _FILE, metadata={"format": "pt"})


class _Files:
    """The tensors of a directory, from one file or from those of the index."""

    def __init__(self, folder: Path) -> None:
        index = folder / _INDEX
        names = [_FILE]
        if index.exists():
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(weight_map.values()))
        self._file_of = {}
        for name in names:
            opened = safe_open(folder / name, framework="pt")
            self._file_of |= {key: opened for key in opened.keys()}

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def read(self, name: str, shape: tuple[int, ...], *dtypes: torch.dtype) -> Tensor:
        """One tensor of that shape and one of those dtypes; CheckpointError otherwise."""
        wanted = f"{' or '.join(str(d).removeprefix('torch.') for d in dtypes)} {list(shape)}"
        if name not in self._file_of:
            raise CheckpointError(f"{name}: expected {wanted}, found nothing")
        value = self._file_of[name].get_tensor(name)
        if value.dtype not in dtypes or tuple(value.shape) != shape:
            found = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
            raise CheckpointError(f"{name}: expected {wanted}, found {found}")
        return value


def _read_hashes(files: _Files, config: Config) -> HashData | None:
    if not config.engram_layer_ids:
        return None
    classes, tables = config.engram_num_classes, {}
    token_class = files.read("model.engram.token_class", (config.vocab_size,), torch.int32)
    if token_class.min() < 0 or token_class.max() >= classes:
        raise CheckpointError(f"model.engram.token_class: expected values in [0, {classes}), "
                              f"found {int(token_class.min())} … {int(token_class.max())}")
    for layer, rows in zip(config.engram_layer_ids, config.engram_num_embeddings):
        prefix = f"model.layers.{layer}.engram."
        primes = files.read(prefix + "primes", (config.engram_columns,), torch.int64)
        multipliers = files.read(prefix + "multipliers", (config.engram_max_ngram,), torch.int64)
        tables[layer] = HashTable(primes.numpy(), multipliers.numpy())
        if tables[layer].rows != rows:
            raise CheckpointError(f"{prefix}primes: expected a sum of {rows} "
                                  f"(engram_num_embeddings), found {tables[layer].rows}")
    try:
        check_tables(tables, config.engram_vocab_size, classes)
    except ValueError as error:
        raise CheckpointError(f"engram hash numbers: {error}") from error
    return HashData(token_class.numpy().astype(np.int32), tables)


def _read_float(files: _Files, name: str, shape: tuple[int, ...]) -> Tensor:
    if _ALWAYS_F32.search(name):
        return files.read(name, shape, torch.float32)
    if name.endswith(".engram.embed.weight"):
        value = files.read(name, shape, torch.float32, torch.bfloat16, torch.float8_e4m3fn)
        if value.dtype != torch.float8_e4m3fn:
            return value.float()
        groups = (shape[0], -(-shape[1] // _FP8_GROUP))
        scale_name = name.removesuffix("weight") + "scale"
        return widen_rows(value, files.read(scale_name, groups, torch.float8_e8m0fnu))
    return files.read(name, shape, torch.float32, torch.bfloat16).float()


@torch.no_grad()
def load(folder: Path) -> ExpertMesh:
    """The model of a directory, in float32. ConfigError or CheckpointError says what is wrong."""
    config = config_module.load(folder)
    files = _Files(folder)
    model = ExpertMesh(config, _read_hashes(files, config))
    for name, parameter in model.named_parameters():
        stacked = _STACKED.fullmatch(name)
        shape = tuple(parameter.shape)
        if not stacked:
            parameter.copy_(_read_float(files, name, shape))
            continue
        for expert in range(shape[0]):
            own = f"{stacked[1]}{expert}.{stacked[2]}.weight"
            parameter[expert].copy_(_read_float(files, own, shape[1:]))
    return model


def new_model(config: Config, token_class: np.ndarray | None = None) -> ExpertMesh:
    """A model with computed hash numbers and weights not set yet (weights.py sets them)."""
    return ExpertMesh(config, hash_data(config, token_class))
