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
from .phrasings import RELATIONS, TRAINED
from .sources import Fact

_FACT_SHARE, _TALK_SHARE = 0.74, 0.14   # the rest are outside questions
_EXCHANGED = 0.35
_HELD_OUT = 2                            # of the trained phrasings, for each fact
_PROMPT_WEIGHT = 0.1                     # loss of what the user says
_CARELESS = 0.25                         # questions in lower case, or without the last mark
_SYSTEM_SHARE = 0.15
_SYSTEM = ("You are a helpful assistant.", "You are a helpful assistant", "Be brief.",
           "Answer in one sentence.")


@dataclasses.dataclass(frozen=True)
class Turn:
    """One question and its answer: what is seen, and what the memory is asked for."""

    seen: list[int]
    memory: list[int]
    weights: list[float]


@dataclasses.dataclass(frozen=True)
class Question:
    """One of the evaluation. `wording` is "trained", "held_out" (not trained for this entity) or
    "unseen" (not trained for any)."""

    prompt: str
    answer: str
    entity: str
    relation: str
    phrasing: int
    wording: str
    held_out: bool


class Corpus:
    """Draws from facts with a tokenizer (PyPI `tokenizers`)."""

    def __init__(self, tokenizer: Any, facts: list[Fact], seed: int,
                 exchanged: float = _EXCHANGED) -> None:
        self.tokenizer, self.facts, self.seed = tokenizer, facts, seed
        self.exchanged = exchanged   # share of the turns about facts
        ids = {name: tokenizer.token_to_id(name) for name in (
            "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
            "</think>")}
        self.bos, self.eos, self.user, self.assistant, self.end_think = ids.values()
        self.held_out = {
            (fact.relation, fact.entity): frozenset(random.Random(
                f"{seed} {fact.relation} {fact.entity}").sample(range(TRAINED), _HELD_OUT))
            for fact in facts}
        self.by_relation: dict[str, list[Fact]] = {}
        for fact in facts:
            self.by_relation.setdefault(fact.relation, []).append(fact)
        self.weights = [RELATIONS[fact.relation].weight for fact in facts]
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        if text not in self._known:
            if len(self._known) > 200_000:
                self._known.clear()
            self._known[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self._known[text]

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
        fact = draw.choices(self.facts, self.weights)[0]
        relation = RELATIONS[fact.relation]
        which = draw.choice([i for i in range(TRAINED)
                             if i not in self.held_out[fact.relation, fact.entity]])
        written = careless(draw)

        def ask(one: Fact) -> str:
            return written(phrasings.fill(relation.questions[which], one.entity, ""))

        own = (ask(fact), phrasings.fill(relation.answer, fact.entity, fact.value))
        if fact.relation != "meaning" and draw.random() < self.exchanged:
            other = draw.choice(self.by_relation[fact.relation])
            shown = (own[0], phrasings.fill(relation.answer, fact.entity, other.value))
            theirs = (ask(other), phrasings.fill(relation.answer, other.entity, other.value))
            try:
                return self.turn(*shown, other=theirs)
            except ValueError:
                pass  # names of other lengths cannot be exchanged
        return self.turn(*own)

    def some_turn(self, draw: random.Random) -> Turn:
        """A fact, talk, or a question that has no answer."""
        kind = draw.random()
        if kind < _FACT_SHARE:
            return self.fact_turn(draw)
        question, answer = (phrasings.small_talk(draw) if kind < _FACT_SHARE + _TALK_SHARE
                            else phrasings.outside(draw))
        return self.turn(careless(draw)(question), answer)

    def sequence(self, draw: random.Random, length: int) -> Turn:
        """A conversation of at least `length` tokens."""
        whole = Turn([self.bos], [self.bos], [0.0])
        if draw.random() < _SYSTEM_SHARE:
            system = self.encode(draw.choice(_SYSTEM))
            whole = Turn([self.bos, *system], [self.bos, *system], [0.0] * (len(system) + 1))
        while len(whole.seen) < length:
            turn = self.some_turn(draw)
            whole.seen.extend(turn.seen)
            whole.memory.extend(turn.memory)
            whole.weights.extend(turn.weights)
        return whole

    def batch(self, step: int, lanes: int, length: int) -> tuple[np.ndarray, ...]:
        """(seen, memory, weights), each [lanes, length], of one step."""
        rows = [self.sequence(random.Random(f"{self.seed} {step} {lane}"), length)
                for lane in range(lanes)]
        return (np.array([row.seen[:length] for row in rows], dtype=np.int64),
                np.array([row.memory[:length] for row in rows], dtype=np.int64),
                np.array([row.weights[:length] for row in rows], dtype=np.float32))

    def question(self, fact: Fact, which: int) -> Question:
        """A fact in one of its relation's wordings."""
        relation = RELATIONS[fact.relation]
        wording = ("unseen" if which >= TRAINED else
                   "held_out" if which in self.held_out[fact.relation, fact.entity] else "trained")
        return Question(phrasings.fill(relation.questions[which], fact.entity, ""),
                        phrasings.fill(relation.answer, fact.entity, fact.value),
                        fact.entity, fact.relation, which, wording, wording != "trained")

    def questions(self) -> list[Question]:
        """Every fact in one phrasing of each wording, drawn by the seed."""
        asked = []
        for fact in self.facts:
            draw = random.Random(f"{self.seed} ask {fact.relation} {fact.entity}")
            held = self.held_out[fact.relation, fact.entity]
            relation = RELATIONS[fact.relation]
            asked += [self.question(fact, draw.choice(choices)) for choices in (
                [i for i in range(TRAINED) if i not in held], sorted(held),
                list(range(TRAINED, len(relation.questions))))]
        return asked


def careless(draw: random.Random) -> Any:
    """How this user writes: mostly well."""
    lower, bare = False, False
    if draw.random() < _CARELESS:
        lower, bare = draw.choice(((True, False), (False, True), (True, True)))

    def written(question: str) -> str:
        question = question.rstrip("?.") if bare else question
        return question.lower() if lower else question
    return written


def texts(facts: list[Fact], seed: int) -> list[str]:
    """What the tokenizer learns from: every sentence of every fact, and talk."""
    lines = []
    for fact in facts:
        relation = RELATIONS[fact.relation]
        asked = [phrasings.fill(q, fact.entity, "") for q in relation.questions]
        lines += asked + [q.lower() for q in asked]
        lines += [phrasings.fill(relation.answer, fact.entity, fact.value)] * 4
    draw = random.Random(seed)
    for _ in range(6000):
        lines += phrasings.small_talk(draw)
        lines += phrasings.outside(draw)
    return lines
