"""Starts the processes of a mesh, watches them, stops them in order."""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from mesh.errors import MeshError
from mesh.instance import Instance, get, start_time

STOP_SECONDS = 15
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """In the child: a session of its own, and SIGTERM when the supervisor is gone."""
    os.setsid()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process of the mesh."""

    def __init__(self, name: str, role: str, argv: list[str], instance: Instance) -> None:
        self.name = name
        self.role = role
        self.log = instance.logs / f"{name}.log"
        self.announce = instance.sockets / f"{name}.json"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn
                [*argv, "--name", name, "--announce-file", str(self.announce)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent)
        self.started = start_time(self.process.pid) or "0"
        self.died: str | None = None
        self.died_at = 0.0

    def announced(self) -> dict[str, Any]:
        """Addresses, once the process has bound them."""
        try:
            return json.loads(self.announce.read_text())
        except (OSError, ValueError):
            return {}

    def check(self) -> str | None:
        """How it ended, if it has."""
        code = self.process.poll()
        if code is not None and self.died is None:
            self.died = f"signal {-code}" if code < 0 else f"exit {code}"
            self.died_at = time.time()
        return self.died

    def last_words(self) -> str:
        """The end of its log, for a failed start."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return "\n".join(f"    {line}" for line in lines[-3:]) or "    (it printed nothing)"


class Supervisor:
    """Owns the children of one instance."""

    def __init__(self, instance: Instance, say: Callable[[str], None]) -> None:
        self.instance = instance
        self.say = say
        self.children: list[Child] = []
        self.info: dict[str, Any] = {}
        instance.logs.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(instance.sockets, ignore_errors=True)
        instance.sockets.mkdir(mode=0o700)

    def start(self, name: str, role: str, argv: list[str]) -> Child:
        """Starts one process."""
        child = Child(name, role, argv, self.instance)
        self.children.append(child)
        return child

    def wait_ready(self, timeout: float) -> None:
        """Until every process answers /readyz with 200; raises with the reasons otherwise."""
        deadline = time.monotonic() + timeout
        waiting = list(self.children)
        reasons: dict[str, str] = {}
        while waiting:
            for child in list(waiting):
                if child.check():
                    raise MeshError(f"{child.name} ended during start ({child.died}):\n"
                                    f"{child.last_words()}\n  full log: {child.log}")
                admin = child.announced().get("admin_address")
                code, text = get(admin, "/readyz") if admin else (0, "starting")
                reasons[child.name] = text.strip().removeprefix("not ready: ")
                if code == 200:
                    self.say(f"  {child.name} ready")
                    waiting.remove(child)
            if time.monotonic() > deadline:
                lines = "\n".join(f"  {c.name}: {reasons[c.name]}" for c in waiting)
                raise MeshError(f"not ready after {timeout:.0f} s:\n{lines}\n"
                                f"  logs: {self.instance.logs}")
            time.sleep(0.05)

    def write_state(self) -> None:
        """Publishes pids and addresses for `status`, `chat` and `down`."""
        self.instance.write_state({
            "pid": os.getpid(), "started": start_time(os.getpid()), **self.info,
            "processes": [{"name": c.name, "role": c.role, "pid": c.process.pid,
                           "started": c.started, "log": str(c.log), "died": c.died,
                           "died_at": c.died_at, **c.announced()} for c in self.children],
        })

    def watch(self, stop: int) -> None:
        """Reports deaths until the pipe `stop` becomes readable."""
        while True:
            readable, _, _ = select.select([stop], [], [], 0.2)
            changed = False
            for child in self.children:
                if child.died is None and child.check():
                    self.say(f"{child.name} died: {child.died}; see {child.log}")
                    changed = True
            if changed:
                self.write_state()
            if readable:
                return

    def stop(self) -> None:
        """SIGTERM in reverse order, SIGKILL for what does not go; then no socket is left."""
        for child in reversed(self.children):
            if child.check() is None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for child in reversed(self.children):
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{child.name} did not stop in {STOP_SECONDS} s: killed")
                child.process.kill()
                child.process.wait()
        shutil.rmtree(self.instance.sockets, ignore_errors=True)
        self.instance.state_file.unlink(missing_ok=True)
