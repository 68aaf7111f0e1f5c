"""A running mesh: where its sockets, logs and state file are, and what its processes say."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mesh.build import ROOT
from mesh.errors import MeshError

DEFAULT_NAME = "default"


@dataclass
class Instance:
    """Paths of one instance; `name` tells several on one machine apart."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", self.name):
            raise MeshError(f"--name {self.name!r}: 1 to 40 letters, digits, '.', '_' or '-'")

    @property
    def logs(self) -> Path:
        return ROOT / "build" / "run" / self.name

    @property
    def state_file(self) -> Path:
        return self.logs / "state.json"

    @property
    def sockets(self) -> Path:
        """Short, since a Unix socket's path has 107 bytes at most; so not below TMPDIR."""
        key = hashlib.sha256(f"{ROOT}/{self.name}".encode()).hexdigest()[:8]
        return Path("/tmp") / f"expertmesh-{os.getuid()}-{key}"

    def restart_request(self, process: str) -> Path:
        """While this file is there, the supervisor is asked to start that process again."""
        return self.sockets / f"{process}.restart"

    @property
    def option(self) -> str:
        """What names this instance on a command line, e.g. " --name second"."""
        return "" if self.name == DEFAULT_NAME else f" --name {self.name}"

    def lock(self) -> IO[str]:
        """Held for a supervisor's life, so that an instance has one; ends with the processes that
        have it open."""
        self.logs.mkdir(parents=True, exist_ok=True)
        handle = (self.logs / "lock").open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise MeshError(f"instance {self.name} runs already; look: ./mesh status"
                            f"{self.option}, stop it: ./mesh down{self.option}") from None
        return handle

    def state(self) -> dict[str, Any] | None:
        """What the supervisor wrote, or None if it does not run."""
        try:
            state = json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return None
        return state if same_process(state["pid"], state["started"]) else None

    def write_state(self, state: dict[str, Any]) -> None:
        """Replaces the state file in one step."""
        aside = self.state_file.with_suffix(".tmp")
        aside.write_text(json.dumps(state, indent=1))
        aside.replace(self.state_file)


def start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat: with the pid it names a process for ever. None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] == "Z" else fields[19]


def same_process(pid: int, started: str) -> bool:
    """True while the process that had this pid then still runs."""
    return start_time(pid) == started


def send(pid: int, started: str, number: int) -> None:
    """A signal to that process; nothing if it is gone."""
    if same_process(pid, started):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


# Loopback is never behind a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(address: str, path: str, timeout: float = 2.0) -> tuple[int, str]:
    """GET from an admin port; (0, reason) if nobody answers."""
    try:
        with _OPENER.open(f"http://{address}{path}", timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
