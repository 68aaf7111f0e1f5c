"""Engram row ids: primes, multipliers and hashes, pure integers (docs/model-family.md §3, §4.0)."""

from __future__ import annotations

import dataclasses

import numpy as np

_INT64_MAX = 2**63 - 1
_LAYER_STRIDE = 10007  # the generator of layer L starts from seed + 10007·L


@dataclasses.dataclass(frozen=True)
class HashTable:
    """Numbers of one engram layer, as the checkpoint holds them."""

    primes: np.ndarray       # int64 [C], columns ordered by n-gram order, then head
    multipliers: np.ndarray  # int64 [N], one per lookback 0 … N−1

    @property
    def rows(self) -> int:
        """Rows of the layer's table."""
        return int(self.primes.sum())


def is_prime(number: int) -> bool:
    """Trial division; numbers of the order of 10^7 are what it is for."""
    if number < 4:
        return number >= 2
    if number % 2 == 0:
        return False
    divisor = 3
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 2
    return True


def choose_primes(vocab_size: int, layers: int, max_ngram: int, heads: int) -> list[np.ndarray]:
    """Primes of every engram layer, int64 [C] each; all distinct.

    For each (layer, order) the search starts again at `vocab_size` and takes the next prime that
    no layer has yet.
    """
    used: set[int] = set()
    tables = []
    for _ in range(layers):
        columns = []
        for _ in range(2, max_ngram + 1):
            candidate = vocab_size - 1
            for _ in range(heads):
                candidate += 1
                while candidate in used or not is_prime(candidate):
                    candidate += 1
                used.add(candidate)
                columns.append(candidate)
        tables.append(np.array(columns, dtype=np.int64))
    return tables


def choose_multipliers(layer: int, classes: int, max_ngram: int, seed: int) -> np.ndarray:
    """Odd multipliers of one layer, int64 [N], with (classes − 1)·multiplier < 2^63."""
    bound = max(1, _INT64_MAX // classes // 2)
    generator = np.random.default_rng(seed + _LAYER_STRIDE * layer)
    return 2 * generator.integers(0, bound, size=max_ngram, dtype=np.int64) + 1


def choose_tables(layer_ids: tuple[int, ...], vocab_size: int, max_ngram: int, heads: int,
                  classes: int, seed: int) -> dict[int, HashTable]:
    """What a writer of checkpoints computes once: layer id → its numbers."""
    primes = choose_primes(vocab_size, len(layer_ids), max_ngram, heads)
    return {layer: HashTable(own, choose_multipliers(layer, classes, max_ngram, seed))
            for layer, own in zip(layer_ids, primes)}


def check_tables(tables: dict[int, HashTable], vocab_size: int, classes: int) -> None:
    """The checks of a reader; ValueError names the layer and what is wrong."""
    seen: set[int] = set()
    for layer, table in tables.items():
        for prime in table.primes.tolist():
            if prime <= vocab_size - 1:
                raise ValueError(f"layer {layer}: prime {prime} is below {vocab_size}")
            if prime in seen:
                raise ValueError(f"layer {layer}: prime {prime} occurs twice")
            seen.add(prime)
        for multiplier in table.multipliers.tolist():
            if multiplier < 1 or multiplier % 2 == 0:
                raise ValueError(f"layer {layer}: multiplier {multiplier} is not odd and positive")
            if (classes - 1) * multiplier > _INT64_MAX:
                raise ValueError(f"layer {layer}: multiplier {multiplier} overflows 63 bits")


def hash_rows(classes: np.ndarray, history: np.ndarray, table: HashTable) -> np.ndarray:
    """Rows of the table that each token reads.

    classes: int64 [B, T] class ids; history: int64 [B, N−1], the classes before them, oldest
    first (the pad class before the sequence). Returns int64 [B, T, C], offsets included.
    No product wraps: classes and multipliers are checked to stay below 2^63.
    """
    orders = len(table.multipliers)
    heads = len(table.primes) // (orders - 1)
    tokens = classes.shape[1]
    padded = np.concatenate((history, classes), axis=1)
    offsets = np.cumsum(table.primes) - table.primes
    mixed = classes * table.multipliers[0]
    rows = []
    for back in range(1, orders):                        # n-gram order = back + 1
        start = orders - 1 - back
        mixed = mixed ^ (padded[:, start:start + tokens] * table.multipliers[back])
        columns = slice((back - 1) * heads, back * heads)
        rows.append(mixed[..., None] % table.primes[columns] + offsets[columns])
    return np.concatenate(rows, axis=-1)


@dataclasses.dataclass(frozen=True)
class HashData:
    """All numbers that the memory of one model hashes with."""

    token_class: np.ndarray          # int32 [V], class id of each token id
    tables: dict[int, HashTable]     # by engram layer

    def pad_class(self, pad_token_id: int) -> int:
        """The class that stands before the first token of a sequence."""
        return int(self.token_class[pad_token_id])
