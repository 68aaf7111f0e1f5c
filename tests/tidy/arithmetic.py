"""What equal bits rest on: flags, and no libm on the row path (docs/architecture.md §4)."""

from __future__ import annotations

import re
import shlex

import cpp
from tree import Tree, Violation, search

_NEEDED = ("-ffp-contract=off", "-Wall", "-Wextra", "-Werror")
_FORBIDDEN = re.compile(
    r"^-(Ofast|ffast-math|funsafe-math-optimizations|fassociative-math|ffinite-math-only|"
    r"freciprocal-math|fno-signed-zeros|ffp-contract=(fast|on)|mrecip.*|march=native|fopenmp)$")
_FOREIGN = ("cmake/", "third_party/")  # Boost, each part compiled once
_NAMES = "exp|exp2|expm1|log|log2|log10|log1p|sin|cos|tan|sinh|cosh|tanh|asin|acos|atan|atan2|" \
         "pow|erf|erfc|cbrt|hypot|tgamma|lgamma"
_LIBM = re.compile(rf"\b(?:std|absl)::(?:{_NAMES})f?\s*\(|(?<![\w:.>])(?:{_NAMES})f?\s*\("
                   rf"|\b__builtin_(?:{_NAMES})f?\b")
_APPROXIMATE = re.compile(r"\b_mm\d*_(?:mask[z]?_)?(?:rcp|rsqrt|exp2a)\w*|\bv(?:recpe|rsqrte)\w*"
                          r"|\bstd::(?:reduce|transform_reduce|execution)\b")
_PRAGMA = re.compile(r"#\s*pragma\s+(?:GCC\s+optimize|STDC\s+FP_CONTRACT|clang\s+fp|omp)\b[^\n]*"
                     r"|\boptimize\s*\(\s*\"")
_ROW_PATH_EXCEPT = ("model/writer/", "model/tokenizer/")


def compile_flags(tree: Tree) -> list[Violation]:
    """Every own file is compiled without contraction and without fast-math."""
    found = []
    seen = set()
    for entry in tree.compile_commands:
        path = entry["file"]
        if path.startswith(_FOREIGN):
            continue
        seen.add(path)
        flags = entry.get("arguments") or shlex.split(entry["command"])
        found += [Violation(path, 0, f"compiled without {flag}")
                  for flag in _NEEDED if flag not in flags]
        found += [Violation(path, 0, f"compiled with {flag}")
                  for flag in flags if _FORBIDDEN.match(flag)]
    if not seen:
        found.append(Violation("compile_commands.json", 0, "names no file of ours"))
    return found


def row_path(tree: Tree) -> list[Violation]:
    """No libm transcendental, no approximate reciprocal, no flag set inside a file of model/."""
    found = []
    for path, text in tree.cpp.items():
        if not path.startswith("model/") or path.startswith(_ROW_PATH_EXCEPT):
            continue
        code = cpp.code_only(text)
        for pattern, why in ((_LIBM, "libm differs between machines: use model/kernels/math.h"),
                             (_APPROXIMATE, "approximate, or in no fixed order"),
                             (_PRAGMA, "flags are set in cmake/ only")):
            found += [Violation(path, line, f"{what.strip()}: {why}")
                      for line, what in search(code, pattern)]
    return found
