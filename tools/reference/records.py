"""What a forward pass leaves behind for goldens, losses and tests, by name and layer."""

from __future__ import annotations

from torch import Tensor

NAMES = (
    "hidden",        # [B, T, n, D] residual after step 3 of the layer
    "experts",       # [B, T, k] chosen expert ids, ascending
    "gate_scores",   # [B, T, E] what experts are selected by: σ(z) + bias
    "expert_load",   # [E] tokens that chose each expert
    "positions",     # [B, T, K] selected positions (absolute), ascending, −1 behind the last
    "index_scores",  # [B, T, S] I(t, s), −inf for s > t; carries the gradient of the indexer
    "attention",     # [B, T, S] p summed over heads, divided by H; detached
    "mixes",         # [B, T, n, n] P of attn_hc
)


class Records:
    """A dictionary name → layer → tensor that keeps only the names asked for."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        unknown = set(names) - set(NAMES)
        if unknown:
            raise ValueError(f"there is no record {sorted(unknown)}; there are {NAMES}")
        self._kept: dict[str, dict[int, Tensor]] = {name: {} for name in names}

    def wants(self, name: str) -> bool:
        """True if it is worth computing."""
        return name in self._kept

    def put(self, name: str, layer: int, value: Tensor) -> None:
        """Keeps `value` if it was asked for."""
        if name in self._kept:
            self._kept[name][layer] = value

    def __getitem__(self, name: str) -> dict[int, Tensor]:
        return self._kept[name]
