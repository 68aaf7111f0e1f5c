"""`./mesh status`: who runs, who is ready, whom the others miss."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from mesh.instance import Instance, get, same_process

NOT_RUNNING = 3


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares status."""
    parser = commands.add_parser(
        "status", help="show the processes of a mesh",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Exit code 0 if all are ready, 1 if one is not, 3 if the mesh does not run.",
        epilog="examples:\n  ./mesh status\n  ./mesh status --watch\n"
               "  ./mesh status --json | python3 -m json.tool")
    parser.add_argument("--name", default="default", help="name of the instance")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.set_defaults(run=run)


def ago(seconds: float) -> str:
    """"42 s" or "3 min"."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def work(page: dict[str, Any]) -> str:
    """What a process does at present, from its own sections of /statusz."""
    if "experts" in page:
        experts = page["experts"]
        return (f"{experts['experts_per_layer']} of {experts['of']} experts, "
                f"{experts['rows_total']} rows, epoch {experts['epoch']}")
    if "lanes" in page:
        lanes = page["lanes"]
        return (f"{lanes['running']} running, {lanes['waiting']} waiting, "
                f"{lanes['pages_used']}/{lanes['pages_total']} pages, epoch {lanes['epoch']}")
    return ""


def look_at(process: dict[str, Any]) -> dict[str, Any]:
    """State, detail and missing peers of one process."""
    seen = {key: process.get(key) for key in ("name", "role", "pid", "log")}
    seen |= {"state": "ready", "for": "", "detail": "", "down": []}
    if process.get("died") or not same_process(process["pid"], process["started"]):
        since = f", {ago(time.time() - process['died_at'])} ago" if process.get("died_at") else ""
        return seen | {"state": "dead", "detail": (process.get("died") or "gone") + since}
    if "admin_address" not in process:
        return seen | {"state": "starting", "detail": "has no address yet"}
    code, text = get(process["admin_address"], "/statusz", timeout=1.0)
    if code != 200:
        return seen | {"state": "silent", "detail": text}
    page = json.loads(text)
    seen |= {"for": ago(page["uptime_s"]), "detail": work(page)}
    if not page["ready"]:
        seen |= {"state": "not ready", "detail": page["reason"]}
    seen["down"] = [f"{p['name']}, {ago(p['since_s'])}: {p['reason']}" for p in page["peers"]
                    if p["state"] == "down"]
    return seen


def show(state: dict[str, Any], as_json: bool) -> int:
    """Prints the table once."""
    rows = [look_at(process) for process in state["processes"]]
    good = state["phase"] == "ready" and all(row["state"] == "ready" for row in rows)
    if as_json:
        print(json.dumps({"phase": state["phase"], "url": state.get("url"),
                          "model": state.get("model"), "ready": good, "processes": rows}, indent=1))
        return 0 if good else 1
    if state["phase"] == "ready":
        print(f"{state['url']}/v1   model {state['model']}\n")
    else:
        print("starting\n")
    print(f"{'process':<16} {'pid':>8}  {'state':<10} {'for':<8} detail")
    for row in rows:
        print(f"{row['name']:<16} {row['pid']:>8}  {row['state']:<10} {row['for']:<8} "
              f"{row['detail']}".rstrip())
        for peer in row["down"]:
            print(f"{'':<17}misses {peer}")
    return 0 if good else 1


def run(args: argparse.Namespace) -> int:
    """Shows the instance."""
    instance = Instance(args.name)
    while True:
        state = instance.state()
        if state is None:
            print(f"mesh: {args.name} is not running; start it with: ./mesh up", file=sys.stderr)
            return NOT_RUNNING
        if args.watch:
            print("\033[H\033[2J", end="")
        code = show(state, args.json)
        if not args.watch:
            return code
        time.sleep(1)
