"""Sizes, columns, headers and words that do not land: docs/engineering.md."""

from __future__ import annotations

import ast
import re
import statistics
import sys

import cpp
from tree import Tree, Violation, search

COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
HEADER_LINES_MEDIAN = 90
SOURCE_LINES_MEDIAN = 170
_MARKERS = re.compile(r"\b(?:" + "|".join(("TO" "DO", "FIX" "ME", "XX" "X", "HA" "CK")) + r")\b")
_HOME = re.compile(r"/(?:home|Users)/[A-Za-z0-9_.-]+/|(?<![\w.])/root[/]")
_VIEWS = re.compile(r"\bstd::(?:ranges::)?views\b")
_SLEEP = re.compile(r"\b(?:sleep_for|sleep_until|usleep|nanosleep|SleepFor)\b|(?<![\w:.])sleep\(")
_SKIP = re.compile(r"\bGTEST_SKIP\b|\bDISABLED_\w+")
_STANDARD_ONLY = ("cli/mesh/", "tests/tidy/", "tests/memory/")


def _lines_max(path: str) -> int:
    if path.startswith("tests/"):
        return 800
    return 700 if path.endswith((".cu", ".cuh")) else 600


def file_size(tree: Tree) -> list[Violation]:
    """Hard stops per file, and the medians of headers and sources."""
    found = []
    sources = tree.cpp | tree.ending(".py")
    for path, text in sources.items():
        count, limit = text.count("\n"), _lines_max(path)
        if count > limit:
            found.append(Violation(path, count, f"{count} lines, at most {limit}"))
    for suffix, limit in ((".h", HEADER_LINES_MEDIAN), (".cc", SOURCE_LINES_MEDIAN)):
        counts = [text.count("\n") for path, text in tree.ending(suffix).items()
                  if not path.startswith("tests/")]
        if counts and statistics.median(counts) > limit:
            found.append(Violation(f"*{suffix}", 0, f"median of {statistics.median(counts):.0f} "
                                                    f"lines, at most {limit}"))
    return found


def function_size(tree: Tree) -> list[Violation]:
    """Functions of at most 70 lines, header and braces included."""
    found = []
    for path, text in tree.cpp.items():
        for function in cpp.functions(text):
            count = function.last_line - function.first_line + 1
            if count > FUNCTION_LINES_MAX:
                found.append(Violation(path, function.first_line,
                                       f"{count} lines, at most {FUNCTION_LINES_MAX}: "
                                       f"{function.header}"))
    for path, text in tree.ending(".py").items():
        for node in ast.walk(_parsed(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION_LINES_MAX:
                    found.append(Violation(path, node.lineno, f"{count} lines: {node.name}"))
    return found


def columns(tree: Tree) -> list[Violation]:
    """Lines of at most 100 columns in code."""
    found = []
    for path, text in (tree.cpp | tree.ending(".py") | tree.ending(".cmake")).items():
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > COLUMNS_MAX:
                found.append(Violation(path, number, f"{len(line)} columns"))
    return found


def headers(tree: Tree) -> list[Violation]:
    """A header begins with what it is for, and is included once."""
    found = []
    for path, text in tree.ending(".h").items():
        if not text.startswith(("//", "/*")):
            found.append(Violation(path, 1, "the first line is no comment saying what it is for"))
        if not re.search(r"^#pragma once$", text, re.M):
            found.append(Violation(path, 1, "#pragma once is missing"))
    return found


def banned_words(tree: Tree) -> list[Violation]:
    """No reminders without a reason, no paths of somebody's machine, no std::views."""
    here = re.compile(re.escape(str(tree.root)) + r"\b")
    found = []
    for path, text in tree.files.items():
        for pattern, why in ((_MARKERS, "finish it or give the reason"),
                             (_HOME, "a path of one machine"), (here, "a path of one machine")):
            found += [Violation(path, line, f"{what}: {why}")
                      for line, what in search(text, pattern)]
    for path, text in tree.cpp.items():
        found += [Violation(path, line, f"{what}: clang 14 cannot read it")
                  for line, what in search(cpp.code_only(text), _VIEWS)]
    return found


def honest_tests(tree: Tree) -> list[Violation]:
    """Tests do not sleep and do not skip."""
    found = []
    for path, text in tree.cpp.items():
        if path.startswith("tests/"):
            code = cpp.code_only(text)
            for pattern, why in ((_SLEEP, "wait for the event, not for time"),
                                 (_SKIP, "a test that does not run is no test")):
                found += [Violation(path, line, f"{what}: {why}")
                          for line, what in search(code, pattern)]
    return found


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def python(tree: Tree) -> list[Violation]:
    """Python compiles, says what it is for, and ./mesh needs the standard library alone."""
    found = []
    own = {path.rsplit("/", 1)[-1].removesuffix(".py") for path in tree.ending(".py")} | {"mesh"}
    for path, text in tree.ending(".py").items():
        try:
            module = ast.parse(text)
        except SyntaxError as error:
            found.append(Violation(path, error.lineno or 1, f"syntax: {error.msg}"))
            continue
        if ast.get_docstring(module) is None:
            found.append(Violation(path, 1, "the module has no docstring"))
        if not path.startswith(_STANDARD_ONLY):
            continue
        for node in ast.walk(module):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in own:
                    found.append(Violation(path, node.lineno, f"{name} is no standard module"))
    return found
