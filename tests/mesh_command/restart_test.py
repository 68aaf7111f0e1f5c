"""Processes that die: when they come back, what `./mesh restart` and `./mesh status` make of it."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import subprocess
import threading
import time
import unittest

from support import FOREVER_SECONDS, STAND_IN, InstanceTest, wait_for_end

from mesh import child, down, restart, status, supervisor
from mesh.errors import MeshError


class RestartTest(InstanceTest):
    """One supervisor; `look` is given the time, so nothing waits for it."""

    def look_after(self, made: supervisor.Supervisor, now: float) -> None:
        """Lets the first process end, then looks."""
        wait_for_end(made.children[0].process)
        made.look(now)

    def seen(self, index: int = 0) -> dict[str, object]:
        """A row of `./mesh status`."""
        state = json.loads(self.instance.state_file.read_text())
        return status.look_at(state["processes"][index], status.RouterView(state["processes"]))

    def run_restart(self, made: supervisor.Supervisor, name: str) -> Exception | None:
        """`./mesh restart NAME` beside the supervisor that serves it."""
        made.info = {"phase": "ready"}
        made.write_state()
        raised: list[Exception] = []

        def command() -> None:
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    restart.run(argparse.Namespace(name="test", process=[name],
                                                   timeout=FOREVER_SECONDS))
            except MeshError as error:
                raised.append(error)

        thread = threading.Thread(target=command)
        thread.start()
        while thread.is_alive():
            made.look(time.monotonic())
            self.signals.wait(0.01)
        return raised[0] if raised else None

    def test_the_delay_doubles_and_ends(self) -> None:
        backoff = child.Backoff()
        self.assertEqual([backoff.delay(1) for _ in range(6)], [0.5, 1, 2, 4, 8, None])
        self.assertEqual(backoff.delay(child.STABLE_SECONDS), 0.5)

    def test_a_killed_process_comes_back_after_the_delay(self) -> None:
        made = self.supervise(("e", "expert-worker", []), restart=True)
        made.wait_ready(FOREVER_SECONDS)
        first = made.children[0].process
        first.kill()
        now = time.monotonic()
        self.look_after(made, now)
        self.assertIn("starts again in 0.5 s", self.said[-1])
        self.assertEqual(self.seen()["state"], "dead")
        made.look(now + 0.4)
        self.assertIs(made.children[0].process, first)
        made.look(now + 0.6)
        self.assertIsNot(made.children[0].process, first)
        made.wait_ready(FOREVER_SECONDS)
        made.look(now + 0.7)  # publishes the new address
        self.assertEqual(self.seen()["state"], "ready")
        self.assertEqual(self.seen()["detail"], "restarted 1 time")
        made.stop()
        self.assertEqual(made.children[0].process.returncode, 0)

    def test_a_crash_loop_ends_and_can_be_begun_anew(self) -> None:
        made = self.supervise(("e", "expert-worker", ["--fail", "out of memory"]), restart=True)
        now = time.monotonic()
        for _ in range(child.RESTARTS_MAX):
            self.look_after(made, now)
            now += 10
            made.look(now)
        self.look_after(made, now)
        self.assertEqual(made.children[0].starts, 1 + child.RESTARTS_MAX)
        self.assertIn("given up", self.said[-1])
        self.assertIn("given up", str(self.seen()["detail"]))
        made.look(now + 1e6)
        self.assertEqual(made.children[0].starts, 1 + child.RESTARTS_MAX)
        self.assertEqual(made.children[0].log.read_text().count("out of memory"), 6)
        raised = self.run_restart(made, "e")
        self.assertIn("out of memory", str(raised))

    def test_a_program_that_is_away_for_a_moment_counts_as_a_death(self) -> None:
        made = self.supervise(("e", "expert-worker", []), restart=True)
        made.children[0].process.kill()
        argv, made.children[0].argv = made.children[0].argv, ["/nonexistent/program"]
        now = time.monotonic()
        self.look_after(made, now)
        made.look(now + 1)
        self.assertIn("cannot start", self.said[-1])
        made.children[0].argv = argv
        made.look(now + 3)
        made.wait_ready(FOREVER_SECONDS)

    def test_restart_brings_a_dead_process_back(self) -> None:
        made = self.supervise(("e", "expert-worker", []))
        made.wait_ready(FOREVER_SECONDS)
        made.children[0].process.kill()
        self.look_after(made, time.monotonic())
        made.look(time.monotonic() + 1e6)
        self.assertEqual(made.children[0].starts, 1, "it was started without being asked for")
        self.assertIsNone(self.run_restart(made, "e"))
        self.assertEqual(self.seen()["state"], "ready")

    def test_restart_stops_a_running_process_first(self) -> None:
        made = self.supervise(("e", "expert-worker", []))
        made.wait_ready(FOREVER_SECONDS)
        first = made.children[0].process
        first.send_signal(signal.SIGSTOP)
        self.assertIsNone(self.run_restart(made, "e"))
        self.assertEqual(first.returncode, 0)
        self.assertIn("no process f", str(self.run_restart(made, "f")))

    def test_what_does_not_stop_for_a_restart_is_killed(self) -> None:
        made = self.supervise(("e", "expert-worker", ["--deaf"]))
        made.wait_ready(FOREVER_SECONDS)
        first = made.children[0].process
        made.children[0].request.touch()
        now = time.monotonic()
        made.look(now)
        made.look(now + child.STOP_SECONDS + 1)
        self.look_after(made, now)
        made.look(now + child.STOP_SECONDS + 2)
        self.assertEqual(first.returncode, -signal.SIGKILL)
        self.assertEqual(made.children[0].starts, 2)
        made.children[0].process.kill()

    def test_the_previous_log_is_kept(self) -> None:
        log = self.instance.logs / "e.log"
        log.write_text("why it crashed")
        made = self.supervise(("e", "expert-worker", []))
        made.wait_ready(FOREVER_SECONDS)
        self.assertEqual(log.with_name("e.log.1").read_text(), "why it crashed")
        self.assertNotIn("why it crashed", log.read_text())

    def test_a_process_started_by_hand_is_found_in_the_view(self) -> None:
        announce = self.instance.logs / "by_hand.json"
        with subprocess.Popen([*STAND_IN, "--name", "e", "--announce-file",
                               str(announce)]) as by_hand:
            while not announce.exists():
                self.signals.wait(0.01)
            address = json.loads(announce.read_text())["admin_address"]
            view = {"members": [{"hello": {"name": "e", "admin_address": address},
                                 "report": {"ready": True}}]}
            made = self.supervise(("e", "expert-worker", []), ("f", "expert-worker", []),
                                  ("router", "router", ["--view", json.dumps(view)]))
            made.wait_ready(FOREVER_SECONDS)
            made.children[0].process.kill()
            self.look_after(made, time.monotonic())
            self.assertEqual(self.seen()["state"], "ready")
            self.assertEqual(self.seen()["pid"], by_hand.pid)
            self.assertIn("by hand", str(self.seen()["detail"]))
            self.assertEqual(self.seen(1)["state"], "not ready")
            self.assertEqual(self.seen(1)["detail"], "the router does not have it")
            by_hand.kill()
        self.assertEqual(self.seen()["state"], "dead")

    def test_down_says_what_a_killed_supervisor_had_left(self) -> None:
        with subprocess.Popen([*STAND_IN, "--name", "e", "--announce-file",
                               str(self.instance.logs / "e.json")]) as left:
            while not (self.instance.logs / "e.json").exists():
                self.signals.wait(0.01)
            os.kill(left.pid, signal.SIGSTOP)
            self.instance.write_state({"pid": left.pid, "started": "0", "processes": [
                {"name": "e", "pid": left.pid, "started": child.start_time(left.pid)}]})
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                self.assertEqual(down.run(argparse.Namespace(name="test")), 0)
        self.assertEqual(left.returncode, 0)
        self.assertEqual(said.getvalue(), "mesh: test: its supervisor was gone; stopped what it "
                                          "had left: e\n")


if __name__ == "__main__":
    unittest.main()
