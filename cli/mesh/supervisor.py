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
from pathlib import Path
from typing import Any

from mesh.errors import MeshError
from mesh.instance import Instance, get, start_time

STOP_SECONDS = 15
# Whoever is asked stops before whom it asks, so that open answers can end.
STOP_ORDER = (("gateway",), ("attention-worker",), ("expert-worker", "engram-store"), ("router",))
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class StopRequested(Exception):
    """A stop signal came."""


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP as something to wait for."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: os.write(self._write, b"x"))

    def wait(self, seconds: float) -> bool:
        """True, once per signal, if one has come or comes within `seconds`."""
        readable, _, _ = select.select([self._read], [], [], seconds)
        return bool(readable) and bool(os.read(self._read, 1))


def last_words(log: Path) -> str:
    """The end of a log, for a failed start."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[-3:]) or "    (it printed nothing)"


class Child:
    """One process of the mesh."""

    def __init__(self, name: str, role: str, argv: list[str], instance: Instance) -> None:
        self.name = name
        self.role = role
        self.log = instance.logs / f"{name}.log"
        self.announce = instance.sockets / f"{name}.json"
        supervisor = os.getpid()

        def die_with_supervisor() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != supervisor:  # it ended before prctl was in force
                os._exit(1)

        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*argv, "--name", name, "--announce-file", str(self.announce)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=die_with_supervisor)
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
            self.died = f"signal {-code}" if code < 0 else f"exit code {code}"
            self.died_at = time.time()
        return self.died

    def not_ready(self) -> str | None:
        """Why it is not ready; None if it is."""
        admin = self.announced().get("admin_address")
        if admin is None:
            return "still loading, has no address yet"
        code, text = get(admin, "/readyz")
        return None if code == 200 else text.strip().removeprefix("not ready: ")


class Supervisor:
    """Owns the children of one instance."""

    def __init__(self, instance: Instance, signals: StopSignals,
                 say: Callable[[str], None]) -> None:
        self.instance = instance
        self.signals = signals
        self.say = say
        self.children: list[Child] = []
        self.info: dict[str, Any] = {"phase": "starting"}
        shutil.rmtree(instance.sockets, ignore_errors=True)
        try:
            instance.sockets.mkdir(mode=0o700)
        except OSError as error:
            raise MeshError(f"cannot make the folder for sockets: {error}") from error

    def start(self, name: str, role: str, argv: list[str]) -> None:
        """Starts one process."""
        self.children.append(Child(name, role, argv, self.instance))
        self.write_state()

    def wait_ready(self, timeout: float) -> None:
        """Until every process answers /readyz with 200; raises with the reasons otherwise."""
        begin = time.monotonic()
        waiting = list(self.children)
        while waiting:
            reasons = {}
            for child in list(waiting):
                if child.check():
                    raise MeshError(f"{child.name} ended during start ({child.died}):\n"
                                    f"{last_words(child.log)}\n  full log: {child.log}")
                reason = child.not_ready()
                if reason is None:
                    self.say(f"  {child.name:<16} ready after {time.monotonic() - begin:.1f} s")
                    waiting.remove(child)
                else:
                    reasons[child.name] = reason
            if waiting and time.monotonic() - begin > timeout:
                lines = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
                raise MeshError(f"not ready after {timeout:.0f} s:\n{lines}\n"
                                f"  logs: {self.instance.logs}")
            if self.signals.wait(0.05 if waiting else 0):
                raise StopRequested

    def write_state(self) -> None:
        """Publishes pids and addresses for `status`, `chat` and `down`."""
        self.instance.write_state({
            "pid": os.getpid(), "started": start_time(os.getpid()), **self.info,
            "processes": [{**c.announced(), "name": c.name, "role": c.role, "pid": c.process.pid,
                           "started": c.started, "log": str(c.log), "died": c.died,
                           "died_at": c.died_at} for c in self.children],
        })

    def write_scrape_targets(self) -> None:
        """The admin ports, for deploy/observability/prometheus.yml."""
        targets = [{"targets": [child.announced()["admin_address"]],
                    "labels": {"process": child.name, "role": child.role}}
                   for child in self.children]
        (self.instance.logs / "targets.json").write_text(json.dumps(targets, indent=1))

    def watch(self) -> None:
        """Reports deaths until a stop signal comes."""
        while not self.signals.wait(0.2):
            dead = [child for child in self.children if child.died is None and child.check()]
            for child in dead:
                self.say(f"{child.name} died: {child.died}; its log: {child.log}")
            if dead:
                self.write_state()

    def stop(self) -> None:
        """SIGTERM in STOP_ORDER; SIGKILL for what does not go in time, or on a second signal. No
        process and no socket is left."""
        patience = True
        for roles in STOP_ORDER:
            group = [child for child in self.children if child.role in roles]
            for child in group:
                if child.check() is None:
                    child.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while patience and any(child.check() is None for child in group):
                patience = not self.signals.wait(0.02)
                if time.monotonic() > deadline:
                    break
            for child in group:
                if child.check() is None:
                    self.say(f"{child.name} is killed: it did not stop in time")
                    child.process.kill()
                    child.process.wait()
        shutil.rmtree(self.instance.sockets, ignore_errors=True)
        self.instance.state_file.unlink(missing_ok=True)
