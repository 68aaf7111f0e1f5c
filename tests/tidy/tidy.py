"""Rules of the source tree, checked fast. One line per rule: `ok NAME` or `FAILED NAME`.

    python3 tests/tidy/tidy.py --build build/release             all rules, then the self-test
    python3 tests/tidy/tidy.py --build build/release columns     one of them
    python3 tests/tidy/tidy.py --list
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import arithmetic
import docs
import fences
import protos
import style
from tree import Tree, Violation, load

Rule = Callable[[Tree], list[Violation]]
RULES: dict[str, Rule] = {
    "component_fence": fences.component_fence,
    "library_fence": fences.library_fence,
    "core_purity": fences.core_purity,
    "compile_flags": arithmetic.compile_flags,
    "row_path": arithmetic.row_path,
    "file_size": style.file_size,
    "function_size": style.function_size,
    "columns": style.columns,
    "headers": style.headers,
    "banned_words": style.banned_words,
    "honest_tests": style.honest_tests,
    "python": style.python,
    "proto_packages": protos.packages,
    "proto_services": protos.services,
    "proto_enums": protos.enums,
    "proto_comments": protos.comments,
    "links": docs.links,
    "readmes": docs.readmes,
    "licences": docs.licences,
    "metrics": docs.metrics,
    "package_list": docs.package_list,
    "runnable": docs.runnable,
}
SELF_TEST = "self_test"


def report(name: str, violations: list[Violation]) -> bool:
    """Prints what a rule found; True if nothing."""
    for path, line, text in violations:
        print(f"{path}:{line}: {text}" if line else f"{path}: {text}")
    print(f"FAILED {name} ({len(violations)})" if violations else f"ok {name}", flush=True)
    return not violations


def main() -> int:
    """Runs the rules asked for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, metavar="DIR",
                        help="build folder; else compile_flags is left out")
    parser.add_argument("--list", action="store_true", help="print the names of the rules")
    parser.add_argument("rules", nargs="*", choices=[*RULES, SELF_TEST, []], metavar="RULE")
    args = parser.parse_args()
    names = args.rules or [*RULES, SELF_TEST]
    if args.list:
        print("\n".join([*RULES, SELF_TEST]))
        return 0
    tree = load(Path(__file__).resolve().parents[2], args.build)
    good = True
    for name in names:
        if name == SELF_TEST:
            import self_test  # imports this module's RULES
            good &= report(name, self_test.run(RULES))
        elif name != "compile_flags" or args.build is not None:
            good &= report(name, RULES[name](tree))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
