"""`./mesh restart`: stops a process of a running mesh, if it lives, and starts it again."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from mesh.arguments import seconds
from mesh.child import last_words
from mesh.errors import MeshError
from mesh.instance import DEFAULT_NAME, Instance, get


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares restart."""
    parser = commands.add_parser(
        "restart", help="start processes of a mesh again",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Has the supervisor start a process again with the command it was started\n"
                    "with: a dead one at once, a running one after it has stopped. One after\n"
                    "another, each until it is ready.",
        epilog="examples:\n  ./mesh restart expert-0-0\n  ./mesh restart gateway --name second")
    parser.add_argument("process", nargs="+", help="its name in ./mesh status")
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of the instance")
    parser.add_argument("--timeout", type=seconds, default=120, metavar="SECONDS",
                        help="until a process must be ready again (default: 120)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Asks the supervisor for one after another."""
    instance = Instance(args.name)
    names = list(processes(instance))
    for name in args.process:
        if name not in names:
            raise MeshError(f"no process {name}; there are: {' '.join(names)}", 2)
    for name in args.process:
        restart(instance, name, args.timeout)
    return 0


def processes(instance: Instance) -> dict[str, dict[str, Any]]:
    """What the supervisor says of each process, by name."""
    state = instance.state()
    if state is None:
        raise MeshError(f"{instance.name} is not running; start it with: ./mesh up"
                        f"{instance.option}")
    if state["phase"] != "ready":
        raise MeshError(f"{instance.name} is still starting; look: ./mesh status{instance.option}")
    return {process["name"]: process for process in state["processes"]}


def restart(instance: Instance, name: str, timeout: float) -> None:
    """One process; returns when it is ready."""
    begin = time.monotonic()
    starts = processes(instance)[name]["starts"]
    instance.restart_request(name).touch()
    reason = "the supervisor has not started it yet"
    while time.monotonic() < begin + timeout:
        process = processes(instance)[name]
        if process["starts"] > starts:
            if process["died"]:
                raise MeshError(f"{name} ended after its restart ({process['died']}):\n"
                                f"{last_words(Path(process['log']))}\n"
                                f"  full log: {process['log']}")
            code, reason = get(process.get("admin_address", ""), "/readyz")
            if code == 200:
                print(f"mesh: {name} is ready again after {time.monotonic() - begin:.1f} s "
                      f"(pid {process['pid']})", file=sys.stderr)
                return
        time.sleep(0.05)
    raise MeshError(f"{name} is not ready after {timeout:g} s: {reason.strip()}")
