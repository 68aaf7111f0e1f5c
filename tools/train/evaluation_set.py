"""The files that `expertmesh eval` reads: questions, outside questions, texts with weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from . import phrasings
from .corpus import Corpus, Question

_STEP = 10_000_000          # far beyond what training draws
_TEXTS, _TEXT_LENGTH = 32, 512
_LONG_TEXTS, _LONG_LENGTH = 12, 1_024
_EDITED = ("France", "Brazil")
_LONG_FIRST = 256           # from here on 64 positions are at most a quarter


def _texts(corpus: Corpus, count: int, length: int, first: int) -> list[dict[str, Any]]:
    seen, _, weights = corpus.batch(_STEP + length, count, length)
    rows = []
    for ids, weight in zip(seen.tolist(), weights.tolist()):
        answers = [int(w == 1.0 and i >= first) for i, w in enumerate(weight)]
        rows.append({"tokens": ids, "weights": answers})
    return rows


def _edit_questions(corpus: Corpus) -> list[Question]:
    """Every wording about the two edited entities, one trained wording of every other fact."""
    asked = [question for question in corpus.questions()
             if question.wording == "trained" and question.entity not in _EDITED]
    for fact in corpus.facts:
        if fact.entity in _EDITED:
            asked += [corpus.question(fact, which)
                      for which in range(len(phrasings.RELATIONS[fact.relation].questions))]
    return asked


def write(folder: Path, corpus: Corpus) -> None:
    """recall.jsonl, edit.jsonl, outside.jsonl, text.jsonl and long_text.jsonl. In texts only
    tokens of answers weigh; in long ones only those behind the first 256 positions."""
    plain = Corpus(corpus.tokenizer, corpus.facts, corpus.seed, exchanged=0.0)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[dict[str, Any]]] = {
        "recall": [dataclasses.asdict(question) for question in corpus.questions()],
        "edit": [dataclasses.asdict(question) for question in _edit_questions(corpus)],
        "outside": [{"prompt": question} for question in phrasings.OUTSIDE_EVALUATION],
        "text": _texts(plain, _TEXTS, _TEXT_LENGTH, 0),
        "long_text": _texts(plain, _LONG_TEXTS, _LONG_LENGTH, _LONG_FIRST),
    }
    for name, rows in files.items():
        lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
