"""Starts the processes of a mesh, watches them, brings dead ones back, stops them in order."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

from mesh.child import STOP_SECONDS, Child, last_words
from mesh.errors import MeshError
from mesh.instance import Instance, start_time

# Whoever is asked stops before whom it asks, so that open answers can end.
STOP_ORDER = (("gateway",), ("attention-worker",), ("expert-worker", "engram-store"), ("router",))
WATCH_SECONDS = 0.1


class StopRequested(Exception):
    """A stop signal came."""


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP as something to wait for. The interpreter writes into a pipe as a
    signal arrives; handlers in Python run between two byte codes only, so one just before a call
    that blocks would wait as long as that call."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in self.NUMBERS:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.NUMBERS)

    def fileno(self) -> int:
        """Readable while a signal waits."""
        return self._read

    def wait(self, seconds: float) -> bool:
        """True, once per signal, if one has come or comes within `seconds`."""
        readable, _, _ = select.select([self._read], [], [], seconds)
        return bool(readable) and bool(os.read(self._read, 1))


class Supervisor:
    """Owns the children of one instance."""

    def __init__(self, instance: Instance, signals: StopSignals,
                 say: Callable[[str], None], restart: bool = True) -> None:
        self.instance = instance
        self.restart = restart
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
        self.children.append(Child(name, role, argv, self.instance, self.restart))
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
            "processes": [child.state() for child in self.children],
        })

    def write_scrape_targets(self) -> None:
        """The admin ports, for deploy/observability/prometheus.yml."""
        targets = [{"targets": [child.published["admin_address"]],
                    "labels": {"process": child.name, "role": child.role}}
                   for child in self.children if "admin_address" in child.published]
        (self.instance.logs / "targets.json").write_text(json.dumps(targets, indent=1))

    def watch(self) -> None:
        """Reports deaths and brings the dead back, until a stop signal comes."""
        while not self.signals.wait(WATCH_SECONDS):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """One look at every process; `now` is monotonic."""
        news = [child.watch(now) for child in self.children]
        for text in filter(None, news):
            self.say(text)
        if any(text is not None for text in news):
            self.write_state()
            self.write_scrape_targets()

    def stop(self) -> None:
        """SIGTERM in STOP_ORDER; SIGKILL for what does not go in time, or on a second signal. No
        process and no socket is left."""
        patience = True
        for roles in STOP_ORDER:
            group = [child for child in self.children if child.role in roles]
            for child in group:
                if child.check() is None:
                    child.terminate()
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
