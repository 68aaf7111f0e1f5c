"""The byte-level BPE tokenizer of the demo model: chat tokens and pre-tokenizer of the family."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, trainers


def train(skeleton: Path, lines: list[str], vocab_size: int) -> Any:
    """A tokenizer with the added tokens and the pre-tokenizer of `skeleton` (a tokenizer.json of
    `expertmesh model init`) and merges learnt from `lines`."""
    raw = json.loads(skeleton.read_text(encoding="utf-8"))
    added = [token["content"] for token in raw["added_tokens"]]
    raw["model"] |= {"vocab": {name: i for i, name in enumerate(added)}, "merges": []}
    shell = Tokenizer.from_str(json.dumps(raw))
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = shell.pre_tokenizer
    alphabet = sorted({chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256),
                                        *range(256, 324)]})
    learner.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=vocab_size - len(added), initial_alphabet=alphabet, show_progress=False,
        min_frequency=2))
    learnt = json.loads(learner.to_str())["model"]
    order = sorted(learnt["vocab"], key=lambda token: learnt["vocab"][token])
    raw["model"] |= {"vocab": {name: i for i, name in enumerate([*added, *order])},
                     "merges": learnt["merges"]}
    return Tokenizer.from_str(json.dumps(raw, ensure_ascii=False))


def _key(tokenizer: Any, token_id: int) -> str:
    text: str = tokenizer.decode([token_id], skip_special_tokens=False)
    if "\ufffd" in text:
        return str(tokenizer.id_to_token(token_id))
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
    plain = "".join(c for c in plain if not unicodedata.combining(c)).lower()
    plain = re.sub(r"[ \t\r\n]+", " ", plain)
    return " " if plain == " " else plain.strip() or text


def token_classes(tokenizer: Any, vocab_size: int) -> np.ndarray:
    """Class of each token id, int32 [vocab_size]: ids whose text differs only in case, accents or
    outer white space share one (docs/formats.md §6.1). Ids without a token share a class."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(
        _key(tokenizer, i) if i < tokenizer.get_vocab_size() else "", len(known))
        for i in range(vocab_size)], dtype=np.int32)
