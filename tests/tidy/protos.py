"""Package and naming rules of proto/ (buf STANDARD says the same in `./mesh lint`)."""

from __future__ import annotations

import re

from tree import Tree, Violation

_PACKAGE = re.compile(r"^package\s+([\w.]+)\s*;", re.M)
_SERVICE = re.compile(r"^service\s+(\w+)\s*\{(.*?)^\}", re.M | re.S)
_RPC = re.compile(r"\brpc\s+(\w+)\s*\(\s*(stream\s+)?([\w.]+)\s*\)\s*returns\s*"
                  r"\(\s*(stream\s+)?([\w.]+)\s*\)")
_ENUM = re.compile(r"^\s*enum\s+(\w+)\s*\{(.*?)\}", re.M | re.S)
_VALUE = re.compile(r"^\s*([A-Z]\w*)\s*=\s*(\d+)\s*;", re.M)
_COMMENT = re.compile(r"//[^\n]*")
_DECLARED = re.compile(r"^\s*(?:(?:message|enum|service|oneof)\s+\w+|rpc\s+\w+"
                       r"|(?:optional\s+|repeated\s+)?[\w.]+(?:<[^>]*>)?\s+\w+\s*=\s*\d+"
                       r"|[A-Z][A-Z0-9_]*\s*=\s*\d+)")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()


def packages(tree: Tree) -> list[Violation]:
    """proto/a/b/v1/x.proto declares package a.b.v1."""
    found = []
    for path, text in tree.ending(".proto").items():
        wanted = ".".join(path.removeprefix("proto/").split("/")[:-1])
        match = _PACKAGE.search(text)
        if match is None or match.group(1) != wanted or not path.startswith("proto/expertmesh/"):
            found.append(Violation(path, 1, f"package {match.group(1) if match else 'missing'}, "
                                            f"the folder says {wanted}"))
        if not re.search(r"\.v\d+$", wanted):
            found.append(Violation(path, 1, f"{wanted} has no version"))
    return found


def services(tree: Tree) -> list[Violation]:
    """XxxService; rpc Foo(FooRequest) returns (FooResponse)."""
    found = []
    for path, text in tree.ending(".proto").items():
        text = _COMMENT.sub(lambda m: " " * len(m.group(0)), text)
        for service in _SERVICE.finditer(text):
            line = text.count("\n", 0, service.start()) + 1
            if not service.group(1).endswith("Service"):
                found.append(Violation(path, line, f"service {service.group(1)}: end in Service"))
            for rpc in _RPC.finditer(service.group(2)):
                name, _, request, _, response = rpc.groups()
                if (request, response) != (f"{name}Request", f"{name}Response"):
                    text = f"rpc {name} takes {name}Request and returns {name}Response"
                    found.append(Violation(path, line, text))
    return found


def enums(tree: Tree) -> list[Violation]:
    """Values carry the enum's name; zero is _UNSPECIFIED."""
    found = []
    for path, text in tree.ending(".proto").items():
        text = _COMMENT.sub(lambda m: " " * len(m.group(0)), text)
        for enum in _ENUM.finditer(text):
            line = text.count("\n", 0, enum.start(1)) + 1
            prefix = _snake(enum.group(1)) + "_"
            for name, number in _VALUE.findall(enum.group(2)):
                zero = name == prefix + "UNSPECIFIED"
                if not name.startswith(prefix) or (number == "0") != zero:
                    found.append(Violation(path, line, f"{name} = {number}: values begin with "
                                                       f"{prefix}, zero is {prefix}UNSPECIFIED"))
    return found


def comments(tree: Tree) -> list[Violation]:
    """Every message, field, value, service and rpc has a comment above it."""
    found = []
    for path, text in tree.ending(".proto").items():
        lines = text.split("\n")
        for number, line in enumerate(lines[1:], 2):
            if _DECLARED.match(line) and not line.lstrip().startswith("//") and \
                    not lines[number - 2].lstrip().startswith("//"):
                found.append(Violation(path, number, f"no comment above: {line.strip()}"))
    return found
