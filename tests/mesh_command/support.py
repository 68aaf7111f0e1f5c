"""What the tests of `./mesh` share: stand-ins for processes, instances in a temporary folder."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cli"))

from mesh import instance, supervisor  # noqa: E402

STAND_IN = [sys.executable, "-B", str(Path(__file__).with_name("stand_in.py"))]
FOREVER_SECONDS = 60


class NoSignals:
    """In place of StopSignals: none comes."""

    def wait(self, seconds: float) -> bool:
        """False, after so long."""
        select.select([], [], [], seconds)
        return False


def wait_for_end(process: subprocess.Popen[bytes]) -> None:
    """Until it has ended; it stays to be reaped by its supervisor."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


class InstanceTest(unittest.TestCase):
    """Each test has an instance of its own in a temporary folder."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        patch = mock.patch.object(instance, "ROOT", Path(folder.name))
        patch.start()
        self.addCleanup(patch.stop)
        self.instance = instance.Instance("test")
        self.instance.logs.mkdir(parents=True)
        self.said: list[str] = []
        self.signals = NoSignals()

    def supervise(self, *children: tuple[str, str, list[str]],
                  restart: bool = False) -> supervisor.Supervisor:
        """A supervisor with these (name, role, flags) started."""
        made = supervisor.Supervisor(self.instance, self.signals, self.said.append, restart)
        self.addCleanup(made.stop)
        for name, role, flags in children:
            made.start(name, role, [*STAND_IN, *flags])
        return made
