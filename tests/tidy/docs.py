"""Pages, catalogues and licences that must agree with the tree."""

from __future__ import annotations

import posixpath
import re
from collections import Counter

from tree import COMPONENTS, Tree, Violation, search

_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)
_DEV_PACKAGE = re.compile(r"\b(?:lib[a-z0-9.+-]*|prometheus-cpp|protobuf)-dev\b")
_PACKAGE_LIST = "cli/mesh/packages.py"
_METRIC = re.compile(r"^\| `(\w+)` \|", re.M)
_RUNNABLE = ("mesh", ".ci/run")


def links(tree: Tree) -> list[Violation]:
    """Links of markdown pages to files of the tree resolve."""
    known = set(tree.files) | set(tree.third_party) | tree.executables
    folders = {posixpath.dirname(path) for path in known}
    folders |= {parent for folder in folders for parent in _parents(folder)}
    found = []
    for path, text in tree.ending(".md").items():
        text = _FENCE.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)
        for match in _LINK.finditer(text):
            target = match.group(1).split("#")[0]
            if not target or re.match(r"[a-z]+:", target):
                continue
            resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            if resolved not in known and resolved not in folders:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Violation(path, line, f"link to {target}: there is no such file"))
    return found


def _parents(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def readmes(tree: Tree) -> list[Violation]:
    """Each component and each service has a README.md."""
    wanted = {path.split("/")[0] for path in tree.cpp
              if path.startswith(tuple(name + "/" for name in (*COMPONENTS, "model", "cli")))}
    wanted |= {"/".join(path.split("/")[:2]) for path in tree.cpp if path.startswith("services/")}
    text = "is missing: what for, picture, how to run, how to test"
    return [Violation(f"{folder}/README.md", 0, text)
            for folder in sorted(wanted) if f"{folder}/README.md" not in tree.files]


def licences(tree: Tree) -> list[Violation]:
    """Vendored files lie beside their licence."""
    tops = {path.split("/")[1] for path in tree.third_party if path.count("/") >= 2}
    return [Violation(f"third_party/{top}", 0, "has no LICENSE file") for top in sorted(tops)
            if not any(path.startswith(f"third_party/{top}/LICENSE") for path in tree.third_party)]


def metrics(tree: Tree) -> list[Violation]:
    """docs/metrics.md names each metric once per component, in lower_snake_case."""
    found = []
    page = tree.files.get("docs/metrics.md", "")
    if not _METRIC.search(page):
        found.append(Violation("docs/metrics.md", 0, "lists no metric"))
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        title = section.split("\n", 1)[0]
        names = Counter(_METRIC.findall(section))
        found += [Violation("docs/metrics.md", 0, f"{title}: {name} is listed {count} times")
                  for name, count in names.items() if count > 1]
        found += [Violation("docs/metrics.md", 0, f"{title}: {name} is not lower_snake_case")
                  for name in names if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]
    return found


def package_list(tree: Tree) -> list[Violation]:
    """Debian packages of the build are named in one file."""
    found = []
    if _PACKAGE_LIST not in tree.files:
        found.append(Violation(_PACKAGE_LIST, 0, "is missing"))
    for path, text in tree.files.items():
        if path != _PACKAGE_LIST and not path.startswith("tests/tidy/"):
            found += [Violation(path, line, f"{what}: packages are listed in {_PACKAGE_LIST}")
                      for line, what in search(text, _DEV_PACKAGE)]
    return found


def runnable(tree: Tree) -> list[Violation]:
    """The entry points have their run bit."""
    return [Violation(path, 0, "is missing or cannot be executed") for path in _RUNNABLE
            if path not in tree.executables]
