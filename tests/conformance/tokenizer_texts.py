"""Texts for tokenizer_parity.py: many languages, code, and what is awkward. Same seed, same texts
(but for man pages, which are the machine's own)."""

from __future__ import annotations

import gzip
import random
import sysconfig
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import babel
import emoji
from babel import localedata
from faker import Faker
from faker.config import AVAILABLE_LOCALES

LINE_MAX = 400  # characters; longer lines are cut
SPACES = (" ", "  ", "\t", "\n", "\r\n", "\n\n", "\r", "\v", "\f", "\u00a0", "\u1680", "\u2003",
          "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u0085", "\u180e", "\u200b", "\ufeff")


def code(limit: int) -> Iterator[str]:
    """Lines of Python's standard library."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
    left = limit
    for path in random.Random(1).sample(files, len(files)):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:200]:
            if left == 0:
                return
            left -= 1
            yield line


def locales() -> Iterator[str]:
    """Names of languages, territories, currencies and months in every language of CLDR."""
    for name in sorted(localedata.locale_identifiers()):
        locale = babel.Locale.parse(name)
        for table in (locale.languages, locale.territories, locale.currencies):
            values = [str(value) for value in table.values()]
            for start in range(0, min(len(values), 120), 6):
                yield "; ".join(values[start:start + 6])
        yield " ".join(locale.months["format"]["wide"].values())
        yield " ".join(locale.days["format"]["wide"].values())


def prose(per_locale: int) -> Iterator[str]:
    """Sentences, names and addresses in the languages of Faker."""
    for name in sorted(AVAILABLE_LOCALES):
        try:
            fake = Faker(name)
        except (AttributeError, ValueError):  # an alias without data
            continue
        fake.seed_instance(7)
        for i in range(per_locale):
            kind = (fake.text, fake.sentence, fake.name, fake.address, fake.company)[i % 5]
            yield kind()


def emojis() -> Iterator[str]:
    """Every emoji, alone and in pairs: joined ones, flags, skin tones, and parts of them."""
    signs = sorted(emoji.EMOJI_DATA)
    rng = random.Random(2)
    for sign in signs:
        yield sign
        yield f"a{sign} {sign}{rng.choice(signs)}, {sign[:-1]}x {sign[1:]}"
    for _ in range(5000):
        yield "".join(rng.choice(signs) for _ in range(rng.randint(1, 8)))


def manuals(limit: int) -> Iterator[str]:
    """Man pages in the languages that this machine has, if any."""
    files = sorted(Path("/usr/share/man").rglob("*.gz"))
    left = limit
    for path in random.Random(3).sample(files, min(len(files), 400)):
        try:
            text = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
        except OSError:
            continue
        for line in text.split("\n")[:80]:
            if left == 0:
                return
            left -= 1
            yield line


def awkward(added: list[str]) -> Iterator[str]:
    """Digits, white space, combining marks, CJK borders, and names of special tokens, whole and
    damaged."""
    rng = random.Random(4)
    digits = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)).startswith("N")]
    marks = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)).startswith("M")]
    cjk = [chr(c) for c in (*range(0x2e80, 0x3400), *range(0x4dfe, 0x4e10), *range(0x9f90, 0xa000),
                            *range(0xf900, 0xfa00), *range(0xff00, 0xffef))]
    words = ["the", "The", "MoE", "naïve", "don't", "x=1", "你好", "世界", "ひらがな", "слово", "שלום",
             "foo_bar", "!!!", "...", "->", "a.b(c)", "12345", "3.14", "½"]
    for _ in range(4000):
        yield "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 60)))
        yield "".join(rng.choice(digits) for _ in range(rng.randint(1, 12))) + rng.choice(words)
        yield "".join(rng.choice(words) + rng.choice(SPACES) * rng.randint(1, 3) for _ in range(8))
        yield "".join(rng.choice("aeé가ก") + rng.choice(marks) for _ in range(rng.randint(1, 8)))
        yield "".join(rng.choice((rng.choice(cjk), rng.choice(words), " "))
                      for _ in range(rng.randint(1, 30)))
        token = rng.choice(added)
        cut = rng.randint(0, len(token))
        yield rng.choice((token, token[:cut], token[cut:], token[:cut] + " " + token[cut:],
                          token.upper(), token.replace("｜", "|"))) + rng.choice(words)
        yield "".join(rng.choice((*added[:3], token, rng.choice(words), rng.choice(SPACES)))
                      for _ in range(6))


def known(text: str) -> bool:
    """Whether Python's Unicode knows every character; other versions class the rest in other
    ways."""
    return all(unicodedata.category(c) not in ("Cn", "Cs") for c in text)


def lines(added: list[str]) -> list[str]:
    """All of the above; 100,000 and more."""
    texts = [*code(40_000), *locales(), *prose(150), *emojis(), *manuals(20_000), *awkward(added)]
    return [text[:LINE_MAX] for text in texts if known(text[:LINE_MAX])]


def assigned() -> list[str]:
    """Every code point that Python's Unicode knows, without surrogates."""
    return [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]


def random_strings(count: int, seed: int) -> Iterator[str]:
    """Strings of 1 to 16 assigned code points, half of them from one block of 256."""
    rng = random.Random(seed)
    points = assigned()
    for i in range(count):
        pool = points
        if i % 2:
            start = rng.randrange(len(points) - 256)
            pool = points[start:start + 256]
        yield "".join(rng.choices(pool, k=rng.randint(1, 16)))
