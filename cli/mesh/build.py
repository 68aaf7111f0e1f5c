"""Configures and builds with CMake presets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mesh import packages
from mesh.errors import MeshError

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = ("expertmesh-router", "expertmesh-engram-store", "expertmesh-expert-worker",
             "expertmesh-attention-worker", "expertmesh-gateway")


def folder(preset: str = "release") -> Path:
    """Where a preset builds."""
    return ROOT / "build" / preset


def binary(name: str, preset: str = "release") -> Path:
    """A built program."""
    return folder(preset) / "bin" / name


def build(targets: tuple[str, ...] = (), preset: str = "release",
          extra: tuple[str, ...] = packages.FUZZ[:0]) -> None:
    """Installs what is missing, configures if needed, builds `targets` (all if empty)."""
    configure(preset, again=packages.ensure(packages.BUILD + extra))
    out = folder(preset)
    command = ["ninja", "-C", str(out), *targets]
    env = dict(os.environ, NINJA_STATUS="[%f/%t %es] ")
    if sys.stderr.isatty():
        done = subprocess.run(command, env=env, check=False, stdout=sys.stderr)
    else:
        done = _run_quietly(command, env)
    if done.returncode != 0:
        raise MeshError(f"the build failed; run: ninja -C build/{preset}")


def refresh(preset: str) -> None:
    """Brings the build files up to date with the CMakeLists.txt; compiles nothing."""
    configure(preset, again=packages.ensure(packages.BUILD))
    command = ["ninja", "-C", str(folder(preset)), "build.ninja"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise MeshError(f"cmake failed in build/{preset}:\n{done.stdout[-3000:]}{done.stderr}")


def configure(preset: str, again: bool = False) -> None:
    """cmake --preset, unless done since the presets changed; Ninja repeats it for the rest."""
    made, presets = folder(preset) / "build.ninja", ROOT / "CMakePresets.json"
    if not again and made.exists() and made.stat().st_mtime > presets.stat().st_mtime:
        return
    print(f"mesh: configuring build/{preset}", file=sys.stderr)
    done = subprocess.run(["cmake", "--preset", preset], cwd=ROOT, check=False,
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise MeshError(f"cmake --preset {preset} failed; see above")


def _run_quietly(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Without a terminal: a line per 50 steps, and everything that is not a step."""
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as ninja:
        assert ninja.stdout is not None
        steps = 0
        for line in ninja.stdout:
            if line.startswith("["):
                steps += 1
                if steps % 50 == 0:
                    print("mesh: building", line.split("]")[0] + "]", file=sys.stderr)
            elif not line.startswith(("ninja: Entering", "-- ")):  # "-- ": what CMake found
                sys.stderr.write(line)
    return subprocess.CompletedProcess(command, ninja.returncode)
