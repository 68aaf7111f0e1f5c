"""`./mesh down`."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from typing import Any

from mesh.child import STOP_SECONDS
from mesh.instance import DEFAULT_NAME, Instance, same_process, send
from mesh.supervisor import STOP_ORDER


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares down."""
    down = commands.add_parser(
        "down", help="stop a mesh", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Stops every process of an instance; fine if none runs.",
        epilog="examples:\n  ./mesh down\n  ./mesh down --name second")
    down.add_argument("--name", default=DEFAULT_NAME, help="name of the instance")
    down.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Stops an instance and waits until nothing of it is left."""
    instance = Instance(args.name)
    state = instance.state()
    if state is not None:
        send(state["pid"], state["started"], signal.SIGTERM)
        if not gone([state], STOP_SECONDS * len(STOP_ORDER) + 5):
            send(state["pid"], state["started"], signal.SIGKILL)
            gone([state], 5)
    with instance.lock():
        cleaned = reap_leftovers(instance, state)
    for line in cleaned:
        print(f"mesh: {args.name}: {line}", file=sys.stderr)
    if state or not cleaned:
        said = "stopped" if state else "is not running"
        print(f"mesh: {args.name} {said}", file=sys.stderr)
    return 0


def gone(processes: list[dict[str, Any]], seconds: float) -> bool:
    """Waits until none of them runs."""
    deadline = time.monotonic() + seconds
    while running(processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def reap_leftovers(instance: Instance, state: dict[str, Any] | None = None) -> list[str]:
    """Ends what a killed supervisor has left behind, removes its files, and says what it did."""
    if state is None:
        try:
            state = json.loads(instance.state_file.read_text())
        except (OSError, ValueError):
            state = {}
    left = running(state.get("processes", []) if state else [])
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in running(left):
            send(process["pid"], process["started"], number)
            send(process["pid"], process["started"], signal.SIGCONT)  # one that was stopped, too
        if gone(left, STOP_SECONDS):
            break
    shutil.rmtree(instance.sockets, ignore_errors=True)
    instance.state_file.unlink(missing_ok=True)
    names = ", ".join(process["name"] for process in left)
    how = "killed" if number == signal.SIGKILL else "stopped"
    return [f"its supervisor was gone; {how} what it had left: {names}"] if left else []


def running(processes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that still run."""
    return [one for one in processes if same_process(one["pid"], one["started"])]
