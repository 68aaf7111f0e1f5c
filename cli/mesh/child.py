"""One process of a mesh: its command, its log, whether it lives, when it is started again."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.instance import Instance, get, start_time

STOP_SECONDS = 15
FIRST_DELAY_SECONDS = 0.5
RESTARTS_MAX = 5  # in a row, without STABLE_SECONDS of running between them
STABLE_SECONDS = 60
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Backoff:
    """How long a process that died waits before it is started again."""

    in_a_row: int = 0

    def delay(self, ran_seconds: float) -> float | None:
        """Seconds, doubling with each death; None once it died too often in a row."""
        self.in_a_row = 1 if ran_seconds >= STABLE_SECONDS else self.in_a_row + 1
        if self.in_a_row > RESTARTS_MAX:
            return None
        return FIRST_DELAY_SECONDS * 2 ** (self.in_a_row - 1)


def last_words(log: Path) -> str:
    """The end of a log, for a failed start."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[-3:]) or "    (it printed nothing)"


def keep_previous(log: Path) -> None:
    """LOG becomes LOG.1, so that the log of a crashed run outlives the next start."""
    if log.exists() and log.stat().st_size > 0:
        log.replace(log.with_name(log.name + ".1"))


class Child:
    """One process; `restart` is whether it comes back by itself after a death."""

    def __init__(self, name: str, role: str, argv: list[str], instance: Instance,
                 restart: bool) -> None:
        self.name = name
        self.role = role
        self.argv = argv
        self.restart = restart
        self.log = instance.logs / f"{name}.log"
        self.announce = instance.sockets / f"{name}.json"
        self.request = instance.restart_request(name)
        self.starts = 0
        self.backoff = Backoff()
        self.died: str | None = None
        self.died_at = 0.0
        self.start_at: float | None = None  # monotonic; None: not to be started
        self.stop_by: float | None = None  # monotonic; set while it is stopped for a restart
        self.published: dict[str, Any] = {}
        keep_previous(self.log)
        self.start()

    def start(self) -> None:
        """Starts it, the first time or again; the log goes on."""
        self.announce.unlink(missing_ok=True)
        supervisor = os.getpid()

        def die_with_supervisor() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != supervisor:  # it ended before prctl was in force
                os._exit(1)

        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*self.argv, "--name", self.name, "--announce-file", str(self.announce)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=die_with_supervisor)
        self.started = start_time(self.process.pid) or "0"
        self.started_at = time.monotonic()
        self.starts += 1
        self.died = None
        self.died_at = 0.0
        self.start_at = None
        self.stop_by = None

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

    def terminate(self) -> None:
        """SIGTERM, which a process that was stopped (SIGSTOP) gets as well."""
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGCONT)

    def watch(self, now: float) -> str | None:
        """One look: notices its end and requests, stops it and starts it when that is due. `now`
        is monotonic. Returns what to tell, "" for a change that needs no words, None for none."""
        if self.request.exists():
            self.request.unlink()
            self.backoff = Backoff()
            if self.check() is None:
                self.terminate()
                self.stop_by = now + STOP_SECONDS
                return f"{self.name} is stopped, to start again"
            self.start_at = now
        if self.died is None and self.check():
            return self._after_end(now)
        if self.died is None and self.stop_by is not None and now > self.stop_by:
            self.process.kill()
            self.stop_by = None
            self.start_at = now
            return f"{self.name} is killed: it did not stop in time"
        if self.died is not None and self.start_at is not None and now >= self.start_at:
            return self._start_again(now)
        return "" if self.announced() != self.published else None

    def _after_end(self, now: float) -> str:
        """Decides when it comes back."""
        if self.stop_by is not None or self.start_at is not None:  # a restart was asked for
            self.start_at = now
            return ""
        text = f"{self.name} died: {self.died}; its log: {self.log}"
        if not self.restart:
            return text
        return self._plan(text, now, now - self.started_at)

    def _start_again(self, now: float) -> str:
        self.start_at = None
        try:
            self.start()
        except OSError as error:  # e.g. the program is being built anew
            self.died = f"cannot start: {error}"
            self.died_at = time.time()
            return self._plan(f"{self.name} {self.died}", now, 0)
        return f"{self.name} is started again (pid {self.process.pid})"

    def _plan(self, text: str, now: float, ran_seconds: float) -> str:
        """Sets when it comes back, if it does; `text` with that."""
        delay = self.backoff.delay(ran_seconds)
        if delay is None:
            return f"{text}\n  {RESTARTS_MAX} restarts in a row did not help: given up"
        self.start_at = now + delay
        return f"{text}; starts again in {delay:g} s"

    def state(self) -> dict[str, Any]:
        """What `status`, `restart` and `down` need to know."""
        self.published = self.announced()
        waits = self.died is not None and self.start_at is not None
        return {**self.published, "name": self.name, "role": self.role, "pid": self.process.pid,
                "started": self.started, "log": str(self.log), "died": self.died,
                "died_at": self.died_at, "starts": self.starts, "comes_back": waits,
                "given_up": self.backoff.in_a_row > RESTARTS_MAX}
