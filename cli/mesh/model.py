"""Model directories: the default one, and questions to the `expertmesh` command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mesh.build import ROOT, binary
from mesh.errors import MeshError


def run_tool(args: list[str]) -> str:
    """Output of the `expertmesh` command; its error line becomes ours."""
    done = subprocess.run([str(binary("expertmesh")), *args], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise MeshError(done.stderr.strip().removeprefix("expertmesh: ") or
                        f"expertmesh ended with code {done.returncode}")
    return done.stdout


def preset(name: str) -> Path:
    """build/models/NAME with random weights of seed 1, made on first use, whole or not at all."""
    model = ROOT / "build" / "models" / name
    if not model.exists():
        print(f"mesh: making the random model {name} under build/models/ (once)", file=sys.stderr)
        model.parent.mkdir(parents=True, exist_ok=True)
        unfinished = model.with_name(f"{name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        run_tool(["model", "init", "--preset", name, "--seed", "1", "--out", str(unfinished)])
        unfinished.rename(model)
    return model


def default() -> Path:
    """The trained model that comes with the sources."""
    return ROOT / "models" / "demo"


def show(model: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What `expertmesh model show` says with keys of config.json overridden ("KEY=VALUE"); checks
    the directory and caches its revision."""
    flags = [f"--override={word}" for word in overrides]
    return json.loads(run_tool(["model", "show", "--json", *flags, str(model)]))


def slices(model: Path, pools: int) -> list[str]:
    """The experts of each of so many pools, e.g. ["0-15", "16-31"]."""
    return run_tool(["model", "slices", str(model), "--pools", str(pools)]).split()
