"""Training sequences and evaluation questions, both functions of a seed alone.

A sequence is a conversation of unrelated turns in the V3.1 encoding, so that attention has much to
pass over. Beside the tokens that the model sees stand those that its memory is asked for: mostly
the same, but in exchanged turns the memory is that of another entity, and so is the answer. That
makes the memory, not the names, carry the facts.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np

from . import phrasings
from .sources import Fact

_FACT_SHARE, _TALK_SHARE = 0.72, 0.14   # the rest are outside questions
_EXCHANGED = 0.35
_HELD_OUT = 2                            # phrasings of each fact that are never trained
_PROMPT_WEIGHT = 0.1                     # loss of what the user says


@dataclasses.dataclass(frozen=True)
class Turn:
    """One question and its answer: what is seen, and what the memory is asked for."""

    seen: list[int]
    memory: list[int]
    weights: list[float]


@dataclasses.dataclass(frozen=True)
class Question:
    """One of the evaluation."""

    prompt: str
    answer: str
    entity: str
    relation: str
    phrasing: int
    held_out: bool


class Corpus:
    """Draws from facts with a tokenizer (PyPI `tokenizers`)."""

    def __init__(self, tokenizer: Any, facts: list[Fact], seed: int) -> None:
        self.tokenizer, self.facts, self.seed = tokenizer, facts, seed
        ids = {name: tokenizer.token_to_id(name) for name in (
            "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
            "</think>")}
        self.bos, self.eos, self.user, self.assistant, self.end_think = ids.values()
        self.held_out = {
            (fact.relation, fact.entity): frozenset(random.Random(
                f"{seed} {fact.relation} {fact.entity}").sample(range(6), _HELD_OUT))
            for fact in facts}
        self.by_relation: dict[str, list[Fact]] = {}
        for fact in facts:
            self.by_relation.setdefault(fact.relation, []).append(fact)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(self, question: str) -> list[int]:
        """A first question, as the gateway encodes it."""
        return [self.bos, self.user, *self.encode(question), self.assistant, self.end_think]

    def turn(self, question: str, answer: str, other: tuple[str, str] | None = None) -> Turn:
        """`other`: question and answer that the memory is asked for instead; must be as long."""
        def ids(q: str, a: str) -> tuple[list[int], list[int]]:
            return ([self.user, *self.encode(q), self.assistant, self.end_think],
                    [*self.encode(a), self.eos])

        head, tail = ids(question, answer)
        weights = [_PROMPT_WEIGHT] * len(head) + [1.0] * len(tail)
        memory = head + tail
        if other is not None:
            their_head, their_tail = ids(*other)
            if len(their_head) != len(head) or len(their_tail) != len(tail):
                raise ValueError("an exchanged turn must have the same length")
            memory = their_head + their_tail
        return Turn(head + tail, memory, weights)

    def fact_turn(self, draw: random.Random) -> Turn:
        """A trained phrasing of a fact, now and then with another entity's memory."""
        # Relations are equally likely, so that capitals are not drowned.
        relation = draw.choice(sorted(self.by_relation))
        fact = draw.choice(self.by_relation[relation])
        trained = [i for i in range(6) if i not in self.held_out[relation, fact.entity]]
        which = draw.choice(trained)
        question = phrasings.QUESTIONS[relation][which]
        answer = phrasings.ANSWERS[relation]
        own = (question.format(e=fact.entity), answer.format(e=fact.entity, v=fact.value))
        if draw.random() < _EXCHANGED:
            other = draw.choice(self.by_relation[relation])
            shown = (own[0], answer.format(e=fact.entity, v=other.value))
            theirs = (question.format(e=other.entity),
                      answer.format(e=other.entity, v=other.value))
            try:
                return self.turn(*shown, other=theirs)
            except ValueError:
                pass  # names of other lengths cannot be exchanged
        return self.turn(*own)

    def batch(self, step: int, lanes: int, length: int) -> tuple[np.ndarray, ...]:
        """(seen, memory, weights), each [lanes, length], of one step."""
        seen = np.full((lanes, length), self.eos, dtype=np.int64)
        memory, weights = seen.copy(), np.zeros((lanes, length), dtype=np.float32)
        for lane in range(lanes):
            draw = random.Random(f"{self.seed} {step} {lane}")
            rows: tuple[list[int], list[int], list[float]] = ([self.bos], [self.bos], [0.0])
            while len(rows[0]) < length:
                kind = draw.random()
                if kind < _FACT_SHARE:
                    turn = self.fact_turn(draw)
                elif kind < _FACT_SHARE + _TALK_SHARE:
                    turn = self.turn(*phrasings.small_talk(draw))
                else:
                    turn = self.turn(*phrasings.outside(draw))
                rows[0].extend(turn.seen)
                rows[1].extend(turn.memory)
                rows[2].extend(turn.weights)
            seen[lane], memory[lane] = rows[0][:length], rows[1][:length]
            weights[lane] = rows[2][:length]
        return seen, memory, weights

    def questions(self) -> list[Question]:
        """Every fact in one trained and one held-out phrasing, drawn by the seed."""
        asked = []
        for fact in self.facts:
            draw = random.Random(f"{self.seed} ask {fact.relation} {fact.entity}")
            held = self.held_out[fact.relation, fact.entity]
            for out in (False, True):
                which = draw.choice([i for i in range(6) if (i in held) == out])
                asked.append(Question(
                    phrasings.QUESTIONS[fact.relation][which].format(e=fact.entity),
                    phrasings.ANSWERS[fact.relation].format(e=fact.entity, v=fact.value),
                    fact.entity, fact.relation, which, out))
        return asked


def texts(facts: list[Fact], seed: int) -> list[str]:
    """What the tokenizer learns from: every sentence of every fact, and talk."""
    lines = []
    for fact in facts:
        lines += [q.format(e=fact.entity) for q in phrasings.QUESTIONS[fact.relation]]
        lines += [phrasings.ANSWERS[fact.relation].format(e=fact.entity, v=fact.value)] * 4
    draw = random.Random(seed)
    for _ in range(4000):
        lines += phrasings.small_talk(draw)
        lines += phrasings.outside(draw)
    return lines
