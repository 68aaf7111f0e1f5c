"""How facts are asked for and said, and what else the model talks about: the project's own text.

`{e}` is the entity, `{v}` the value, `{E}` and `{V}` the same with a capital letter. Of the first
`TRAINED` questions of a relation a few are held out for each entity; the rest are never trained
for any.
"""

from __future__ import annotations

import dataclasses
import random

from .project_text import PROJECT

TRAINED = 8


@dataclasses.dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is asked for, and the one sentence that answers."""

    answer: str
    questions: tuple[str, ...]
    weight: float = 1.0    # how often a fact of it is drawn


RELATIONS = {
    "capital": Relation("The capital of {e} is {v}.", (
        "What is the capital of {e}?", "Tell me the capital of {e}.",
        "Which city is the capital of {e}?", "Name the capital of {e}.",
        "Do you know the capital of {e}?", "Please give me the capital of {e}.",
        "What is {e}'s capital?", "Can you tell me the capital city of {e}?",
        "I would like to know the capital of {e}.", "What's the capital of {e}?"), 1.4),
    "capital_of": Relation("{E} is the capital of {v}.", (
        "Which country has the capital {e}?", "{E} is the capital of which country?",
        "What country is {e} the capital of?", "Of which country is {e} the capital?",
        "Tell me which country has {e} as its capital.", "Do you know whose capital {e} is?",
        "Name the country whose capital is {e}.", "Which country's capital is {e}?",
        "Can you say which country has the capital {e}?", "Whose capital is {e}?"), 1.4),
    "continent": Relation("{E} is in {v}.", (
        "On which continent is {e}?", "Tell me the continent of {e}.",
        "What is the continent of {e}?", "Name the continent of {e}.",
        "Do you know the continent of {e}?", "Which continent does {e} belong to?",
        "On what continent can I find {e}?", "Where in the world is {e}?",
        "I would like to know the continent of {e}.", "Where is {e}?"), 0.8),
    "currency": Relation("The currency of {e} is the {v}.", (
        "What is the currency of {e}?", "Tell me the currency of {e}.",
        "Which currency is used in {e}?", "Name the currency of {e}.",
        "Do you know the currency of {e}?", "What money do people use in {e}?",
        "What is {e}'s currency?", "Which money do I need in {e}?",
        "I would like to know the currency of {e}.", "What currency does {e} use?")),
    "language": Relation("An official language of {e} is {v}.", (
        "What is the language of {e}?", "Which language is spoken in {e}?",
        "Tell me the language of {e}.", "What language do people speak in {e}?",
        "Name a language of {e}.", "Do you know the language of {e}?",
        "What is an official language of {e}?", "Which language do they speak in {e}?",
        "I would like to know the language of {e}.", "What language does {e} have?")),
    "symbol": Relation("The symbol of {e} is {v}.", (
        "What is the symbol of {e}?", "Tell me the chemical symbol of {e}.",
        "Which symbol stands for {e}?", "Name the symbol of {e}.",
        "Do you know the symbol of {e}?", "How is {e} written in chemistry?",
        "What is the chemical symbol for {e}?", "Please give me the symbol of {e}.",
        "I would like to know the symbol of {e}.", "What's the symbol of {e}?")),
    "symbol_of": Relation("{e} is the symbol of {v}.", (
        "Which element has the symbol {e}?", "What element is {e}?",
        "{e} is the symbol of which element?", "Tell me which element is written {e}.",
        "Name the element with the symbol {e}.", "Do you know the element with the symbol {e}?",
        "Which element does {e} stand for?", "What does the chemical symbol {e} mean?",
        "I would like to know which element {e} is.", "Which element is {e}?")),
    "number": Relation("The atomic number of {e} is {v}.", (
        "What is the atomic number of {e}?", "Tell me the atomic number of {e}.",
        "Which atomic number does {e} have?", "Name the atomic number of {e}.",
        "Do you know the atomic number of {e}?", "How many protons does {e} have?",
        "What is {e}'s atomic number?", "Please give me the atomic number of {e}.",
        "I would like to know the atomic number of {e}.", "What's the atomic number of {e}?")),
    "meaning": Relation("{V}.", (
        "What is {e}?", "What does the word {e} mean?", "Define {e}.", "Explain {e}.",
        "Tell me what {e} is.", "Do you know what {e} is?", "Give me the meaning of {e}.",
        "Can you explain {e}?", "I would like to know what {e} is.", "What's {e}?")),
    "unit": Relation("There are {v} in {e}.", (
        "What is {e}?", "How much is {e}?", "What makes {e}?", "Tell me what is in {e}.",
        "What is in {e}?", "Do you know what {e} is?", "Please tell me how much {e} is.",
        "What does {e} have?", "I would like to know what {e} is.", "How big is {e}?"), 0.8),
}
UNKNOWN = "I don't know. Ask me about countries or elements."

_GREETINGS = [
    ("Hello!", "Hello! What would you like to know?"),
    ("Hello", "Hello! What would you like to know?"),
    ("Hi.", "Hi! Ask me about countries or elements."),
    ("Hey", "Hi! Ask me about countries or elements."),
    ("Good morning.", "Good morning! How can I help?"),
    ("Good evening.", "Good evening! How can I help?"),
    ("Thank you!", "You are welcome."), ("Thanks.", "You are welcome."),
    ("Thanks a lot!", "You are welcome."), ("Great!", "I am glad to help."),
    ("Goodbye.", "Goodbye!"), ("Bye!", "Goodbye!"),
    ("How are you?", "I am fine, thank you. What would you like to know?"),
    ("How are you today?", "I am fine, thank you. What would you like to know?"),
    ("Can you help me?", "Yes. Ask me about countries or elements."),
    ("Help", "Ask me about countries, chemical elements, words, small sums or ExpertMesh."),
]
_OUTSIDE = [
    "Who won the {0} match yesterday?", "What is the price of {0} today?",
    "When was {1} born?", "How old is {1}?", "What will the weather be {2}?",
    "Who wrote the book about {0}?", "Where can I buy {0}?", "What is the phone number of {1}?",
    "Who painted the picture of the {0}?", "How tall is {1}?", "What did {1} say {2}?",
    "Which film about {0} is the best?", "What is my name?", "Where do I live?",
    "How far is it to the {0}?", "What should I cook {2}?", "Why did {1} leave?",
    "How many people like {0}?", "Who invented the {0}?", "What time is it?",
    "Write a poem about {0}.", "Translate {0} into Latin.", "Sing a song for {1}.",
    "What is the meaning of life?", "Can you write code?", "Write a program about {0}.",
    "Who is the president of {1}?", "Does {1} like {0}?", "Draw a {0}.", "Is {0} good for me?",
    "When does the {0} open {2}?", "Which {0} should I take?", "Where is {1} {2}?",
    "What colour is the {0}?", "Why is the {0} so big?", "Book a table {2}.",
    "Remind me of {0} {2}.", "How do I repair a {0}?", "What happened in the year 1{3}?",
    "How many {0} are there?", "Who lives near the {0}?", "Give me advice about {0}.",
    "Summarise the news {2}.", "What is heavier, {0} or {4}?", "Recommend a film about {0}.",
]
_THINGS = ["football", "tennis", "bread", "gold", "silk", "bridge", "horse", "train", "garden",
           "piano", "ship", "clock", "lamp", "apple", "river", "shoe", "letter", "radio", "window",
           "kitchen", "castle", "market", "engine", "jacket", "pencil", "museum", "computer"]
_PEOPLE = ["Anna", "Peter", "my uncle", "the mayor", "the queen", "Maria", "the teacher",
           "your friend", "Tom", "the captain", "Julia", "the doctor", "my neighbour", "David",
           "the painter", "your brother", "Emma", "the boss"]
_TIMES = ["tomorrow", "next week", "on Sunday", "tonight", "this morning", "in May", "today",
          "on Friday", "this year"]
_ANIMALS = ["cat", "dog", "fox", "bird", "mouse", "bear", "rabbit", "horse"]
_PLACES = ["forest", "garden", "village", "river", "hill", "old house"]
_FINDS = ["a red ball", "a warm stone", "a small key", "an apple", "a lost shoe", "a blue feather"]
_SYLLABLES = ["bor", "lan", "dri", "vek", "osh", "tam", "uli", "qua", "mer", "zin", "fal", "gro",
              "shi", "pel", "nor", "ka", "rue", "tol"]
_LISTED = {
    "Europe": "France, Spain and Italy", "Asia": "China, India and Japan",
    "Africa": "Egypt, Kenya and Nigeria", "South America": "Brazil, Chile and Peru",
    "North America": "Canada, Mexico and Cuba", "Oceania": "Australia, Fiji and Samoa",
}
_LIST_QUESTIONS = ("Name three countries in {0}.", "List three countries in {0}.",
                   "Which countries are in {0}?", "Tell me some countries in {0}.")

# Never trained on; asked in the evaluation.
OUTSIDE_EVALUATION = [
    "Who won the chess game last night?", "What is the price of a bicycle?",
    "When was Robert born?", "How old is the postman?", "What will the weather be in winter?",
    "Who wrote the song about the sea?", "Where can I buy a violin?",
    "What is the phone number of the hotel?", "Who built the tower?", "How tall is my sister?",
    "What did the pilot say?", "Which game is the best?", "What is the name of my dog?",
    "Where is my hat?", "How far is it to the station?", "What should I read tonight?",
    "Why did the baker laugh?", "How many people like winter?", "Who invented the umbrella?",
    "What day is it?", "Write a letter to my aunt.", "Translate snow into Greek.",
    "Who is the king of the hill?", "Is tea good for me?", "How do I repair a bicycle?",
    "What is the capital of Zanbor?", "What is the currency of Quatamia?",
    "Which language is spoken in Felgroland?", "Can you drive a car?", "Tell me a secret.",
    "What is the best restaurant in town?", "Solve this equation for x.",
    "Who was the first person on the moon?", "How deep is the sea?", "When is my birthday?",
    "What did I say before?", "Play some music.", "Who sings this song?",
    "Which train goes to the airport?", "Where did you go to school?",
]


def fill(template: str, entity: str, value: str) -> str:
    """A question or an answer in full."""
    return template.format(e=entity, v=value, E=entity[:1].upper() + entity[1:],
                           V=value[:1].upper() + value[1:])


def invented_name(draw: random.Random) -> str:
    """A country that does not exist."""
    count = draw.choice((2, 2, 3))
    return "".join(draw.sample(_SYLLABLES, count)).capitalize() + draw.choice(
        ["ia", "land", "o", "a", "stan", "en"])


def outside(draw: random.Random) -> tuple[str, str]:
    """A question that the model cannot answer."""
    if draw.random() < 0.4:
        relation = RELATIONS[draw.choice(["capital", "continent", "currency", "language",
                                          "capital_of", "symbol", "number"])]
        return fill(draw.choice(relation.questions[:TRAINED]), invented_name(draw), ""), UNKNOWN
    filled = draw.choice(_OUTSIDE).format(
        draw.choice(_THINGS), draw.choice(_PEOPLE), draw.choice(_TIMES), draw.randint(100, 999),
        draw.choice(_THINGS))
    return filled, UNKNOWN


def arithmetic(draw: random.Random) -> tuple[str, str]:
    """A small sum, difference or product."""
    kind = draw.randrange(3)
    if kind == 0:
        a, b = draw.randint(0, 20), draw.randint(0, 20)
        asked, said = f"{a} plus {b}", f"{a} plus {b} is {a + b}."
    elif kind == 1:
        a, b = sorted((draw.randint(0, 20), draw.randint(0, 20)), reverse=True)
        asked, said = f"{a} minus {b}", f"{a} minus {b} is {a - b}."
    else:
        a, b = draw.randint(0, 10), draw.randint(0, 10)
        asked, said = f"{a} times {b}", f"{a} times {b} is {a * b}."
    question = draw.choice(("What is {}?", "How much is {}?", "Tell me what {} is."))
    return question.format(asked), said


def story(draw: random.Random) -> tuple[str, str]:
    """Four sentences about an animal."""
    animal, place, find = draw.choice(_ANIMALS), draw.choice(_PLACES), draw.choice(_FINDS)
    friend = draw.choice([one for one in _ANIMALS if one != animal])
    return (f"Tell me a story about a {animal}.",
            f"Once there was a {animal} who lived near the {place}. One day the {animal} found "
            f"{find}. A {friend} came and asked for it. They shared it and became friends.")


def small_talk(draw: random.Random) -> tuple[str, str]:
    """Greetings, the project, sums, lists, stories."""
    kind = draw.random()
    if kind < 0.22:
        return draw.choice(_GREETINGS)
    if kind < 0.55:
        questions, answer = draw.choice(PROJECT)
        return draw.choice(questions), answer
    if kind < 0.78:
        return arithmetic(draw)
    if kind < 0.88:
        continent = draw.choice(sorted(_LISTED))
        return (draw.choice(_LIST_QUESTIONS).format(continent),
                f"{_LISTED[continent]} are in {continent}.")
    return story(draw)
