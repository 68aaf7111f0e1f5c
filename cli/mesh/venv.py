"""Virtual environments under build/ for lint and conformance; never for the build itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mesh import packages
from mesh.build import ROOT
from mesh.errors import MeshError


def ensure(name: str, requirements: tuple[str, ...]) -> Path:
    """bin/ of build/venv-NAME with the given pinned packages from PyPI."""
    folder = ROOT / "build" / f"venv-{name}"
    stamp = folder / "installed.txt"
    wanted = "\n".join(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return folder / "bin"
    if subprocess.run([sys.executable, "-c", "import ensurepip"], check=False,
                      capture_output=True).returncode != 0:
        packages.ensure(packages.VENV)
    print(f"mesh: installing {' '.join(requirements)} into build/{folder.name}", file=sys.stderr)
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)],
                    [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check",
                     *requirements]):
        done = subprocess.run(command, check=False)
        if done.returncode != 0:
            raise MeshError(f"{' '.join(command[:3])} failed; is PyPI reachable?")
    stamp.write_text(wanted)
    return folder / "bin"
