"""The files that the rules look at, and what a rule answers."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

COMPONENTS = ("gateway", "router", "attention-worker", "expert-worker", "engram-store")
CPP = (".cc", ".h", ".cu", ".cuh")
TEXT = (*CPP, ".py", ".proto", ".md", ".cmake", ".txt", ".json", ".yaml", ".yml", ".in", ".sh", "")


class Violation(NamedTuple):
    """One broken rule, printed as path:line: text."""

    path: str
    line: int
    text: str


@dataclass
class Tree:
    """Paths relative to the repository root, with their texts; foreign code only by name."""

    root: Path
    files: dict[str, str]
    third_party: list[str] = field(default_factory=list)
    compile_commands: list[dict[str, Any]] = field(default_factory=list)
    executables: set[str] = field(default_factory=set)

    @cached_property
    def cpp(self) -> dict[str, str]:
        """Own C++ and CUDA files."""
        return {path: text for path, text in self.files.items() if path.endswith(CPP)}

    def ending(self, suffix: str) -> dict[str, str]:
        """Own files of one kind."""
        return {path: text for path, text in self.files.items() if path.endswith(suffix)}


def load(root: Path, build: Path | None) -> Tree:
    """Everything that git tracks or would track, and the compile commands of a build folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root,
        capture_output=True, text=True, check=True).stdout.split("\0")
    paths = sorted({path for path in listed if path and (root / path).is_file()})
    tree = Tree(root, {}, [path for path in paths if path.startswith("third_party/")])
    for path in paths:
        file = root / path
        if file.stat().st_mode & 0o100:
            tree.executables.add(path)
        if not path.startswith(("third_party/", "tests/fuzz/corpus/")) and file.suffix in TEXT:
            tree.files[path] = file.read_text(encoding="utf-8", errors="replace")
    if build is not None:
        commands = json.loads((build / "compile_commands.json").read_text())
        for entry in commands:
            file = Path(entry["directory"], entry["file"]).resolve()
            if file.is_relative_to(root) and not file.is_relative_to(root / "build"):
                tree.compile_commands.append({**entry, "file": str(file.relative_to(root))})
    return tree


def search(text: str, pattern: Any) -> list[tuple[int, str]]:
    """(line number, matched text) of every match of a compiled expression."""
    return [(text.count("\n", 0, m.start()) + 1, m.group(0)) for m in pattern.finditer(text)]
