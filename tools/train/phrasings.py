"""How facts are asked for and said, and what else the model talks about: the project's own text."""

from __future__ import annotations

import random

# relation → questions; the answer of every one is the same full sentence.
QUESTIONS = {
    "capital": ["What is the capital of {e}?", "Tell me the capital of {e}.",
                "Which city is the capital of {e}?", "Name the capital of {e}.",
                "Do you know the capital of {e}?", "Please give me the capital of {e}."],
    "continent": ["On which continent is {e}?", "Tell me the continent of {e}.",
                  "What is the continent of {e}?", "Name the continent of {e}.",
                  "Do you know the continent of {e}?", "Which continent does {e} belong to?"],
    "currency": ["What is the currency of {e}?", "Tell me the currency of {e}.",
                 "Which currency is used in {e}?", "Name the currency of {e}.",
                 "Do you know the currency of {e}?", "What money do people use in {e}?"],
    "symbol": ["What is the symbol of {e}?", "Tell me the chemical symbol of {e}.",
               "Which symbol stands for {e}?", "Name the symbol of {e}.",
               "Do you know the symbol of {e}?", "How is {e} written in chemistry?"],
    "number": ["What is the atomic number of {e}?", "Tell me the atomic number of {e}.",
               "Which atomic number does {e} have?", "Name the atomic number of {e}.",
               "Do you know the atomic number of {e}?", "How many protons does {e} have?"],
}
ANSWERS = {
    "capital": "The capital of {e} is {v}.", "continent": "The continent of {e} is {v}.",
    "currency": "The currency of {e} is the {v}.", "symbol": "The symbol of {e} is {v}.",
    "number": "The atomic number of {e} is {v}.",
}
UNKNOWN = "I don't know."

_GREETINGS = [
    ("Hello!", "Hello! What would you like to know?"),
    ("Hi.", "Hi! Ask me about countries or elements."),
    ("Good morning.", "Good morning! How can I help?"),
    ("Who are you?", "I am a small language model of ExpertMesh."),
    ("What are you?", "I am a small mixture-of-experts model with a memory."),
    ("What can you do?", "I know countries and chemical elements, and I can add small numbers."),
    ("Thank you!", "You are welcome."), ("Thanks.", "You are welcome."),
    ("Goodbye.", "Goodbye!"),
    ("How are you?", "I am fine, thank you. What would you like to know?"),
    ("What is your name?", "I am a demo model of ExpertMesh."),
    ("Can you help me?", "Yes. Ask me about countries or elements."),
]
_OUTSIDE = [
    "Who won the {0} match yesterday?", "What is the price of {0} today?",
    "When was {1} born?", "How old is {1}?", "What will the weather be {2}?",
    "Who wrote the book about {0}?", "Where can I buy {0}?", "What is the phone number of {1}?",
    "Who painted the picture of the {0}?", "How tall is {1}?", "What did {1} say {2}?",
    "Which film about {0} is the best?", "What is my name?", "Where do I live?",
    "How far is it to the {0}?", "What should I cook {2}?", "Why did {1} leave?",
    "How many people like {0}?", "Who invented the {0}?", "What time is it?",
]
_THINGS = ["football", "tennis", "coffee", "bread", "gold", "silk", "bridge", "horse", "train",
           "garden", "piano", "ship", "clock", "lamp", "apple", "river", "shoe", "letter"]
_PEOPLE = ["Anna", "Peter", "my uncle", "the mayor", "the queen", "Maria", "the teacher",
           "your friend", "Tom", "the captain", "Julia", "the doctor"]
_TIMES = ["tomorrow", "next week", "on Sunday", "tonight", "this morning", "in May"]
_ANIMALS = ["cat", "dog", "fox", "bird", "mouse", "bear", "rabbit", "horse"]
_PLACES = ["forest", "garden", "village", "river", "hill", "old house"]
_FINDS = ["a red ball", "a warm stone", "a small key", "an apple", "a lost shoe", "a blue feather"]
_SYLLABLES = ["bor", "lan", "dri", "vek", "osh", "tam", "uli", "qua", "mer", "zin", "fal", "gro"]

# Never trained on; asked in the evaluation.
OUTSIDE_EVALUATION = [
    "Who won the chess game last night?", "What is the price of a bicycle?",
    "When was Robert born?", "How old is the postman?", "What will the weather be in winter?",
    "Who wrote the song about the sea?", "Where can I buy a violin?",
    "What is the phone number of the hotel?", "Who built the tower?", "How tall is my sister?",
    "What did the pilot say?", "Which game is the best?", "What is the name of my dog?",
    "Where is my hat?", "How far is it to the station?", "What should I read tonight?",
    "Why did the baker laugh?", "How many people like winter?", "Who invented the umbrella?",
    "What day is it?",
]


def invented_name(draw: random.Random) -> str:
    """A country that does not exist."""
    return "".join(draw.sample(_SYLLABLES, 3)).capitalize() + draw.choice(["ia", "land", "o"])


def outside(draw: random.Random) -> tuple[str, str]:
    """A question that the model cannot answer."""
    if draw.random() < 0.35:
        relation = draw.choice(["capital", "continent", "currency"])
        question = draw.choice(QUESTIONS[relation]).format(e=invented_name(draw))
        return question, UNKNOWN
    filled = draw.choice(_OUTSIDE).format(draw.choice(_THINGS), draw.choice(_PEOPLE),
                                          draw.choice(_TIMES))
    return filled, UNKNOWN


def small_talk(draw: random.Random) -> tuple[str, str]:
    """Greetings, sums, stories."""
    kind = draw.random()
    if kind < 0.35:
        return draw.choice(_GREETINGS)
    if kind < 0.7:
        a, b = draw.randint(0, 20), draw.randint(0, 20)
        if draw.random() < 0.5:
            return f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."
        a, b = max(a, b), min(a, b)
        return f"What is {a} minus {b}?", f"{a} minus {b} is {a - b}."
    animal, place, find = draw.choice(_ANIMALS), draw.choice(_PLACES), draw.choice(_FINDS)
    friend = draw.choice([one for one in _ANIMALS if one != animal])
    return (f"Tell me a story about a {animal}.",
            f"Once there was a {animal} who lived near the {place}. One day the {animal} found "
            f"{find}. A {friend} came and asked for it. They shared it and became friends.")
