"""`./mesh`: the supervisor over stand-in processes, and the small decisions of the commands."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

from support import FOREVER_SECONDS, ROOT, STAND_IN, InstanceTest, NoSignals, wait_for_end

from mesh import down, instance, status, suites, up
from mesh.errors import MeshError

class SignalAtOnce(NoSignals):
    """A stop signal has come already."""

    def wait(self, seconds: float) -> bool:
        return True


class SignalAfterDeath(NoSignals):
    """A stop signal comes at the second look, after the end of a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._looks = 0

    def wait(self, seconds: float) -> bool:
        if self._looks == 0:
            wait_for_end(self._process)
        self._looks += 1
        return self._looks > 1


class MeshCommandTest(InstanceTest):
    """The supervisor, and what it says."""

    def test_starts_reports_and_leaves_nothing(self) -> None:
        made = self.supervise(("router", "router", []), ("gateway", "gateway", []))
        made.wait_ready(FOREVER_SECONDS)
        self.assertEqual(sorted(line.split()[0] for line in self.said), ["gateway", "router"])
        state = self.instance.state()
        assert state is not None
        self.assertEqual([one["name"] for one in state["processes"]], ["router", "gateway"])
        made.write_state()  # as `up` does once all are ready
        state = json.loads(self.instance.state_file.read_text())
        view = status.RouterView(state["processes"])
        seen = [status.look_at(one, view) for one in state["processes"]]
        self.assertEqual([one["state"] for one in seen], ["ready", "ready"])
        self.assertEqual(seen[0]["down"], ["gone, 1 s: connection refused"])
        made.stop()
        self.assertTrue(all(child.process.returncode == 0 for child in made.children))
        self.assertFalse(self.instance.sockets.exists())
        self.assertIsNone(self.instance.state())

    def test_a_process_that_ends_during_start_is_named_with_its_last_line(self) -> None:
        made = self.supervise(("expert-0-0", "expert-worker", ["--fail", "no such model"]))
        with self.assertRaises(MeshError) as caught:
            made.wait_ready(FOREVER_SECONDS)
        self.assertIn("expert-0-0", str(caught.exception))
        self.assertIn("exit code 3", str(caught.exception))
        self.assertIn("no such model", str(caught.exception))

    def test_what_is_not_ready_says_why(self) -> None:
        made = self.supervise(("a", "attention-worker", ["--not-ready", "experts 16-31 missing"]))
        while made.children[0].not_ready() != "experts 16-31 missing":
            self.signals.wait(0.01)
        with self.assertRaises(MeshError) as caught:
            made.wait_ready(0)
        self.assertIn("a: experts 16-31 missing", str(caught.exception))

    def test_a_killed_process_is_shown(self) -> None:
        made = self.supervise(("e", "expert-worker", []), ("g", "gateway", []))
        made.wait_ready(FOREVER_SECONDS)
        os.kill(made.children[0].process.pid, signal.SIGKILL)
        made.signals = SignalAfterDeath(made.children[0].process)
        made.watch()
        made.signals = self.signals
        self.assertIn("e died: signal 9", self.said[-1])
        state = self.instance.state()
        assert state is not None
        self.assertEqual(state["processes"][0]["died"], "signal 9")
        seen = status.look_at(state["processes"][0], status.RouterView(state["processes"]))
        self.assertEqual(seen["state"], "dead")
        self.assertIn("./mesh restart e", seen["detail"])

    def test_a_second_signal_kills_what_does_not_stop(self) -> None:
        made = self.supervise(("g", "gateway", ["--deaf"]))
        made.wait_ready(FOREVER_SECONDS)
        made.signals = SignalAtOnce()
        made.stop()
        self.assertEqual(made.children[0].process.returncode, -signal.SIGKILL)

    def test_a_killed_supervisor_takes_its_processes_along(self) -> None:
        program = (f"import sys; sys.path.insert(0, {str(ROOT / 'cli')!r})\n"
                   "from pathlib import Path\nfrom mesh import instance, supervisor\n"
                   "instance.ROOT = Path(sys.argv[1])\n"
                   "made = supervisor.Supervisor(instance.Instance('test'),\n"
                   "                             supervisor.StopSignals(), print)\n"
                   f"made.start('g', 'gateway', {STAND_IN!r})\n"
                   "made.wait_ready(60)\nprint('up', flush=True)\nmade.watch()\n")
        with subprocess.Popen([sys.executable, "-B", "-c", program, str(instance.ROOT)],
                              stdout=subprocess.PIPE, text=True) as killed:
            assert killed.stdout is not None
            while killed.stdout.readline().strip() != "up":
                self.assertIsNone(killed.poll())
            state = self.instance.state()
            assert state is not None
            child = os.pidfd_open(state["processes"][0]["pid"])
            killed.kill()
        self.assertTrue(select.select([child], [], [], FOREVER_SECONDS)[0], "the process lives on")
        os.close(child)
        self.assertIsNone(self.instance.state())
        self.assertEqual(down.reap_leftovers(self.instance), [])
        self.assertFalse(self.instance.sockets.exists())

    def test_an_instance_has_one_supervisor(self) -> None:
        with self.instance.lock():
            self.assertRaises(MeshError, self.instance.lock)
        self.instance.lock().close()

    def test_names_of_instances_stay_inside_the_folder(self) -> None:
        for name in ("", "../x", "a/b", "x" * 41):
            self.assertRaises(MeshError, instance.Instance, name)

    def test_a_taken_port_is_said_aloud(self) -> None:
        with socket.socket() as taken, mock.patch.object(up, "say", self.said.append):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.assertGreater(up.free_port(port), port)
        self.assertIn(f"port {port} is taken", self.said[0])
        self.assertEqual(up.free_port(0), 0)

    def test_cases_are_counted_not_programs(self) -> None:
        report = Path(instance.ROOT) / "report.json"
        self.assertEqual(suites.count_cases("run", report), suites.Count(1, 0, 0))
        self.assertEqual(suites.count_cases("fail", report), suites.Count(0, 1, 0))
        cases = [{"testsuite": [{"result": "SKIPPED"}, {"result": "COMPLETED"}]}]
        report.write_text(json.dumps({"tests": 9, "failures": 2, "disabled": 1,
                                      "testsuites": []}))
        self.assertEqual(suites.count_cases("fail", report), suites.Count(6, 2, 1))
        report.write_text(json.dumps({"tests": 2, "failures": 0, "testsuites": cases}))
        self.assertEqual(suites.count_cases("run", report), suites.Count(1, 0, 1))
        report.write_text(json.dumps({"tests": 9, "failures": 0, "testsuites": []}))
        self.assertEqual(suites.count_cases("fail", report).failed, 1)


if __name__ == "__main__":
    unittest.main()
