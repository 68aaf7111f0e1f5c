"""Rotary positions R_t, plain or YaRN (docs/model-family.md §4.4, docs/formats.md §1.3–1.4)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """A `rope_scaling` of type yarn. `mscale`, `mscale_all_dim` 0 means absent."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None

    @staticmethod
    def parse(raw: Any) -> YarnScaling:
        """Reads the object of config.json; ValueError says what is wrong."""
        if not isinstance(raw, dict):
            raise ValueError("null or an object is needed")
        kind = raw.get("rope_type", raw.get("type"))
        if kind != "yarn":
            raise ValueError("only type yarn is supported")
        values = {field.name: raw[field.name] for field in dataclasses.fields(YarnScaling)
                  if raw.get(field.name) is not None}
        if any(type(value) not in (int, float) for value in values.values()):
            raise ValueError("all values but the type are numbers")
        missing = {"factor", "original_max_position_embeddings"} - set(values)
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} is required")
        if values["factor"] < 1 or values["original_max_position_embeddings"] < 1:
            raise ValueError("factor and original_max_position_embeddings are at least 1")
        return YarnScaling(**values)

    def to_json(self) -> dict[str, Any]:
        """The object of config.json."""
        values = {key: value for key, value in dataclasses.asdict(self).items()
                  if value is not None}
        return {"type": "yarn", **values}

    def magnitude(self, scale: float) -> float:
        """g(s) = 0.1·s·ln(factor) + 1."""
        return 0.1 * scale * math.log(self.factor) + 1.0

    def cos_sin_factor(self) -> float:
        """What cos and sin are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self.magnitude(self.mscale) / self.magnitude(self.mscale_all_dim)
        return self.magnitude(1.0)

    def softmax_factor(self) -> float:
        """m²: what the softmax scale of the attention is multiplied by."""
        return self.magnitude(self.mscale_all_dim) ** 2 if self.mscale_all_dim else 1.0

    def correction_range(self, theta: float, dims: int) -> tuple[float, float]:
        """(low, high): pair numbers between which the frequencies are blended."""
        def correction(turns: float) -> float:
            ratio = self.original_max_position_embeddings / (2 * math.pi * turns)
            return dims * math.log(ratio) / (2 * math.log(theta))

        low = max(math.floor(correction(self.beta_fast)), 0)
        high = min(math.ceil(correction(self.beta_slow)), dims - 1)
        return low, high + 0.001 if low == high else high


def frequencies(theta: float, dims: int, scaling: YarnScaling | None) -> np.ndarray:
    """Angle per position of each pair: float64 [dims / 2]."""
    pair = np.arange(dims // 2, dtype=np.float64)
    plain = np.float64(theta) ** (-2.0 * pair / dims)
    if scaling is None:
        return plain
    low, high = scaling.correction_range(theta, dims)
    ramp = np.clip((pair - low) / (high - low), 0.0, 1.0)
    return plain / scaling.factor * ramp + plain * (1.0 - ramp)


class Rotation:
    """R_t for a run of positions; cos and sin are float32 numbers, angles were float64."""

    def __init__(self, positions: np.ndarray, theta: float, dims: int,
                 scaling: YarnScaling | None, dtype: torch.dtype) -> None:
        angle = positions.astype(np.float64)[:, None] * frequencies(theta, dims, scaling)
        factor = 1.0 if scaling is None else scaling.cos_sin_factor()
        self.cos = torch.from_numpy((np.cos(angle) * factor).astype(np.float32)).to(dtype)
        self.sin = torch.from_numpy((np.sin(angle) * factor).astype(np.float32)).to(dtype)
        self.dims = dims  # cos, sin: [T, dims / 2]

    def __call__(self, x: Tensor, interleaved: bool = True) -> Tensor:
        """Rotates the first `dims` of the last axis of x [B, T, …, d]; the rest is unchanged."""
        between = (1,) * (x.dim() - 3)
        cos = self.cos.view(-1, *between, self.dims // 2)
        sin = self.sin.view(-1, *between, self.dims // 2)
        head, tail = x[..., :self.dims], x[..., self.dims:]
        if interleaved:                                  # pairs (2i, 2i + 1)
            a, b = head[..., 0::2], head[..., 1::2]
            turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
        else:                                            # pairs (i, i + dims / 2)
            a, b = head.chunk(2, -1)
            turned = torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
        return torch.cat((turned, tail), -1)
