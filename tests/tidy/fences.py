"""Who may include whom: docs/architecture.md §5."""

from __future__ import annotations

import re

import cpp
from tree import COMPONENTS, Tree, Violation, search

# Folder → own folders its files may include besides themselves. The longest matching folder counts.
_PROTO = "expertmesh/"
_MAY_INCLUDE = {
    "services/base": (),
    "services/telemetry": ("services/base",),
    "services/http": ("services/base",),
    "services/lifecycle": ("services/base", "services/telemetry"),
    "services/rpc": ("services/base", "services/telemetry", _PROTO),
    "services/transport": ("services/base", "services/telemetry", "services/rpc", _PROTO),
    "services/example": ("services", _PROTO),
    "services/accounts": ("services", _PROTO),
    "model": ("services/base",),
    "cli": ("model", "services", _PROTO, *(f"{name}/core" for name in COMPONENTS)),
    **{name: ("model", "services", _PROTO) for name in COMPONENTS},
    **{f"{name}/core": ("model", "services/base") for name in COMPONENTS},
}

_OURS = {folder.split("/")[0] for folder in _MAY_INCLUDE} | {"expertmesh", "tests"}

# Library → own folders or file beginnings that may include it. tests/ mirrors the source, so a
# library allowed in X is allowed in tests/X too.
_LIBRARIES = {
    "RocksDB": (re.compile(r"^rocksdb/"), ("engram-store/rocksdb/", "services/accounts/")),
    "CUDA": (re.compile(r"^(cuda|cublas|nccl|cooperative_groups)"),
             ("model/kernels/cuda/", "services/transport/nccl/")),
    "prometheus-cpp": (re.compile(r"^prometheus/"), ("services/telemetry/",)),
    "Asio and Beast": (re.compile(r"^boost/(asio|beast)"),
                       ("gateway/", "services/lifecycle/", "services/http/",
                        "cmake/boost_asio.cc")),
    "Boost.JSON": (re.compile(r"^boost/json"),
                   ("gateway/", "services/lifecycle/", "model/config", "model/checkpoint",
                    "model/weight", "model/tokenizer/", "model/grammar/",
                    "model/writer/", "cli/", "tests/support/",
                    "tests/mesh/", "tests/parity/", "cmake/boost_json.cc")),
    "PCRE2": (re.compile(r"^pcre2"), ("model/tokenizer/",)),
    "gRPC": (re.compile(r"^(grpc|grpcpp)/"),
             ("services/rpc/", "services/transport/", "services/example/", "services/accounts/",
              "cli/examples/",
              "tests/mesh/", "tests/parity/", "tests/support/",
              *(f"{name}/" for name in COMPONENTS))),
    "protobuf": (re.compile(r"^google/(protobuf|rpc)/"),
                 ("services/rpc/", "services/transport/", "services/example/", "cli/",
                  "tests/services/base/", "tests/mesh/", "tests/fuzz/",
                  *(f"{name}/" for name in COMPONENTS))),
}
_NOT_IN_CORE = re.compile(
    r"^(grpc|grpcpp|google|rocksdb|prometheus|boost/(?!json)|spdlog|thread$|mutex$|shared_mutex$|"
    r"condition_variable$|future$|stop_token$|sys/socket|services/base/(thread_pool|entropy))")
_CLOCK_OR_THREAD = re.compile(
    r"\b\w*_clock::now\b|\babsl::Now\b|\bGetCurrentTimeNanos\b|\bclock_gettime\b|\bgettimeofday\b"
    r"|\btime\((?:nullptr|NULL|0)\)|\bstd::(?:thread|jthread|async)\b|\bEntropyU64\b")


def _folder(path: str) -> str | None:
    fits = [folder for folder in _MAY_INCLUDE if path.startswith(folder + "/")]
    return max(fits, key=len) if fits else None


def component_fence(tree: Tree) -> list[Violation]:
    """Own headers: services → base, model → services/base, components never each other."""
    found = []
    for path, text in tree.cpp.items():
        folder = _folder(path)
        if folder is None:
            continue
        allowed = (folder, *(name.rstrip("/") for name in _MAY_INCLUDE[folder]))
        for include in cpp.includes(text):
            ours = include.path.split("/")[0] in _OURS
            if ours and not include.path.startswith(tuple(name + "/" for name in allowed)):
                found.append(Violation(path, include.line,
                                       f"{folder} may not include {include.path}"))
    return found


def library_fence(tree: Tree) -> list[Violation]:
    """Each library stays behind the folders that own it."""
    found = []
    for path, text in tree.cpp.items():
        mirrored = path.removeprefix("tests/")
        for include in cpp.includes(text):
            for name, (pattern, allowed) in _LIBRARIES.items():
                if pattern.match(include.path) and not (path.startswith(allowed) or
                                                        mirrored.startswith(allowed)):
                    found.append(Violation(path, include.line, f"{name} does not belong here: "
                                                               f"{include.path}"))
    return found


def core_purity(tree: Tree) -> list[Violation]:
    """core/ is (event, now) → actions: no network, no clock, no thread."""
    found = []
    for path, text in tree.cpp.items():
        if not path.startswith(tuple(f"{name}/core/" for name in COMPONENTS)):
            continue
        for include in cpp.includes(text):
            if _NOT_IN_CORE.match(include.path):
                found.append(Violation(path, include.line, f"core/ may not include {include.path}"))
        for line, what in search(cpp.code_only(text), _CLOCK_OR_THREAD):
            found.append(Violation(path, line, f"core/ may not use {what}"))
    return found
