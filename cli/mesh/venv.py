"""Virtual environments for lint, conformance and tools/; never for the build itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mesh import packages
from mesh.build import ROOT
from mesh.errors import MeshError


def ensure(name: str, requirements: tuple[str, ...]) -> Path:
    """bin/ of build/venv-NAME with the given pinned packages from PyPI."""
    return install(ROOT / "build" / f"venv-{name}", requirements)


def tools() -> Path:
    """The Python of tools/: EXPERTMESH_TOOLS_PYTHON if set, else an environment outside the
    repository with tools/requirements.txt (torch: several GB)."""
    given = os.environ.get("EXPERTMESH_TOOLS_PYTHON")
    if given:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    lines = (ROOT / "tools" / "requirements.txt").read_text().splitlines()
    wanted = tuple(line for line in lines if line and not line.startswith("#"))
    return install(cache / "expertmesh" / "venv-tools", wanted) / "python"


def install(folder: Path, requirements: tuple[str, ...]) -> Path:
    """bin/ of an environment with just these packages, made anew if they changed."""
    stamp = folder / "installed.txt"
    wanted = "\n".join(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return folder / "bin"
    if subprocess.run([sys.executable, "-c", "import ensurepip"], check=False,
                      capture_output=True).returncode != 0:
        packages.ensure(packages.VENV)
    print(f"mesh: installing {' '.join(requirements)} into {folder}", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)],
                    [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check",
                     *requirements]):
        done = subprocess.run(command, check=False)
        if done.returncode != 0:
            raise MeshError(f"{' '.join(command[:3])} failed; is PyPI reachable?")
    stamp.write_text(wanted)
    return folder / "bin"
