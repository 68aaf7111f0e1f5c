"""The one list of Debian packages, and how missing ones are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from mesh.errors import MeshError

# What the build needs on Debian 12.
BUILD = (
    "g++", "cmake", "ninja-build", "pkg-config", "git",
    "libgrpc++-dev", "protobuf-compiler", "protobuf-compiler-grpc", "libprotobuf-dev",
    "libabsl-dev", "libboost1.81-dev", "librocksdb-dev", "prometheus-cpp-dev", "libpcre2-dev",
    "libcli11-dev", "libspdlog-dev", "libssl-dev", "libnghttp2-dev", "libgmock-dev",
    "libbenchmark-dev",
)
FUZZ = ("clang-14", "libclang-rt-14-dev")
LINT = ("clang-format-14", "clang-tidy-14", "python3-venv")
VENV = ("python3-venv",)
PROMETHEUS = ("prometheus",)  # for promtool


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those of `packages` that dpkg does not report as installed."""
    if shutil.which("dpkg-query") is None:
        return []  # not Debian: CMake will name what it cannot find
    found = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Status}\n", *packages],
        capture_output=True, text=True, check=False,
    ).stdout
    installed = {line.split()[0] for line in found.splitlines() if line.endswith(" installed")}
    return [name for name in packages if name not in installed]


def ensure(packages: tuple[str, ...]) -> bool:
    """Installs what is missing with apt, as root or with sudo; else says the one line to run. True
    if something was missing: what was configured before knows nothing of it."""
    wanted = missing(packages)
    if not wanted:
        return False
    prefix: list[str] | None = None
    if os.geteuid() == 0:
        prefix = []
    elif shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], check=False,
                                                 capture_output=True).returncode == 0:
        prefix = ["sudo", "-n"]
    line = "apt-get update && apt-get install -y " + " ".join(wanted)
    if prefix is None:
        raise MeshError(f"packages are missing; run as root: {line}")
    print(f"mesh: installing {len(wanted)} Debian packages: {' '.join(wanted)}", file=sys.stderr)
    env = prefix + ["env", "DEBIAN_FRONTEND=noninteractive"]
    for command in (["apt-get", "update", "-qq"],
                    ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted]):
        done = subprocess.run(env + command, check=False, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise MeshError(f"apt failed (exit {done.returncode}); run by hand: {line}")
    return True
