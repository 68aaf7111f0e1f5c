"""Just enough C++: blank out comments and literals, list includes, find functions."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r'//(?:[^\n\\]|\\.|\\\n)*'                                # line comment, with continuations
    r'|/\*.*?\*/'                                             # block comment
    r'|\b(?:u8|u|U|L)?R"([^()\\\s]{0,16})\(.*?\)\1"'          # raw string
    r'|"(?:[^"\\\n]|\\.|\\\n)*"'                              # string
    r"|(?<![0-9A-Za-z_])(?:u8|u|U|L)?'(?:[^'\\\n]|\\.)+'",    # character, not a digit separator
    re.S)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.M)
_SCOPE = re.compile(
    r'(?:(?:inline|static|typedef|constexpr|const|alignas\([^)]*\))\s+)*'
    r'(?:namespace|class|struct|union|enum|extern\s*$|extern\s+"[^"]*"\s*$)')


class Include(NamedTuple):
    """One #include; `system` for <...>."""

    line: int
    path: str
    system: bool


class Function(NamedTuple):
    """A function body with its header, lines counted from 1, both ends included."""

    first_line: int
    last_line: int
    header: str


def code_only(text: str) -> str:
    """The text with comments and literals blanked; every character keeps its line and column."""
    return _TOKEN.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def includes(text: str) -> list[Include]:
    """Includes in order; those inside comments are left out."""
    without_comments = re.sub(r"//[^\n]*|/\*.*?\*/",
                              lambda m: re.sub(r"[^\n]", " ", m.group(0)), text, flags=re.S)
    return [Include(text.count("\n", 0, m.start()) + 1, m.group(2), m.group(1) == "<")
            for m in _INCLUDE.finditer(without_comments)]


def _without_templates(header: str) -> str:
    """Drops a leading template<...>, also with nested brackets, and attributes."""
    header = header.strip()
    while header.startswith(("template", "[[")):
        if header.startswith("[["):
            header = header[header.index("]]") + 2:].strip()
            continue
        depth, end = 0, len(header)
        for i, char in enumerate(header):
            depth += (char == "<") - (char == ">")
            if char == ">" and depth == 0:
                end = i + 1
                break
        header = header[end:].strip()
    return header


def functions(text: str) -> list[Function]:
    """Bodies at namespace or class scope whose header has a parameter list."""
    code = re.sub(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", lambda m: re.sub(r"[^\n]", " ", m.group(0)),
                  code_only(text), flags=re.M | re.S)
    found: list[Function] = []
    depth_inside = 0             # braces open inside a function or an initialiser
    start = 0                    # where the current header begins
    current: int | None = None   # start of the function being read
    after_function = False       # the last thing read was such a body
    for i, char in enumerate(code):
        if char == "{":
            if depth_inside:
                depth_inside += 1
                continue
            header = code[start:i]
            core = _without_templates(header)
            if _SCOPE.match(core):
                start, after_function = i + 1, False
                continue
            # A constructor's braced member initialiser is followed by ", b_{" or by the body.
            continued = after_function and (not core or core.startswith(","))
            current = start if "(" in core or continued else None
            depth_inside = 1
        elif char == "}":
            if depth_inside:
                depth_inside -= 1
                if depth_inside == 0:
                    if current is not None:
                        found.append(_function(code, current, i))
                    after_function = current is not None
                    start = i + 1
            else:
                start, after_function = i + 1, False
        elif char == ";" and not depth_inside:
            start, after_function = i + 1, False
    return found


def _function(code: str, start: int, end: int) -> Function:
    header = code[start:end].lstrip()
    label = re.match(r"(?:(?:public|private|protected)\s*:\s*)+", header)
    begin = start + (len(code[start:end]) - len(header)) + (label.end() if label else 0)
    first = code.count("\n", 0, begin) + 1
    last = code.count("\n", 0, end) + 1
    return Function(first, last, " ".join(header.split("{")[0].split())[:80])
