"""`./mesh status`: who runs, who is ready, whom the others miss."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from mesh.instance import DEFAULT_NAME, Instance, get, same_process

NOT_RUNNING = 3


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares status."""
    parser = commands.add_parser(
        "status", help="show the processes of a mesh",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Exit code 0 if all are ready, 1 if one is not, 3 if the mesh does not run.\n"
                    "A process lives if its recorded pid does; it is ready if it says so and the\n"
                    "router has it. One that was started by hand under the name of a dead one is\n"
                    "found in the router's view.",
        epilog="examples:\n  ./mesh status\n  ./mesh status --watch\n"
               "  ./mesh status --json | python3 -m json.tool")
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of the instance")
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


def page_of(address: str | None) -> tuple[dict[str, Any] | None, str]:
    """/statusz of a process; (None, reason) if it has none."""
    code, text = get(address, "/statusz", timeout=1.0) if address else (0, "has no address yet")
    try:
        return (json.loads(text), "") if code == 200 else (None, text)
    except ValueError as error:
        return None, f"its /statusz is no JSON: {error}"


def lives(process: dict[str, Any]) -> bool:
    """Whether the recorded process still runs."""
    return not process.get("died") and same_process(process["pid"], process["started"])


class RouterView:
    """Whom the router has. `known` is false while no router answers."""

    def __init__(self, processes: list[dict[str, Any]]) -> None:
        self.known = False
        self.members: dict[str, dict[str, Any]] = {}
        self.left_out: dict[str, str] = {}
        for process in processes:
            page, _ = page_of(process.get("admin_address")) if (
                process["role"] == "router" and lives(process)) else (None, "")
            if page is not None and "view" in page:
                self.known = True
                self.left_out = page.get("left_out", {})
                self.members = {one["hello"]["name"]: one for one in page["view"]["members"]}

    def admin_address(self, name: str) -> str | None:
        """Where the process of that name has its admin port."""
        return self.members[name]["hello"].get("admin_address") if name in self.members else None

    def objection(self, name: str) -> str | None:
        """Why a process that calls itself ready gets no work; None if it does."""
        if not self.known:
            return None
        if name not in self.members:
            return "the router does not have it"
        if name in self.left_out:
            return f"left out by the router: {self.left_out[name]}"
        report = self.members[name].get("report", {})
        return None if report.get("ready") else (report.get("reason") or
                                                 "not ready in the router's view")


def look_at(process: dict[str, Any], view: RouterView) -> dict[str, Any]:
    """State, detail and missing peers of one process."""
    seen = {key: process.get(key) for key in ("name", "role", "pid", "log", "grpc_address")}
    seen |= {"state": "ready", "uptime": "", "detail": "", "down": [],
             "restarts": process.get("starts", 1) - 1}
    by_hand = False
    address = process.get("admin_address")
    if not lives(process):
        address = view.admin_address(process["name"])
        page = page_of(address)[0] if address else None
        by_hand = page is not None and page["pid"] != process["pid"]
        if not by_hand:
            return seen | {"state": "dead", "detail": end_of(process)}
        seen["pid"] = page["pid"]
    elif address is None:
        return seen | {"state": "starting", "detail": "has no address yet"}
    page, reason = page_of(address)
    if page is None:
        return seen | {"state": "silent", "detail": reason}
    seen |= {"uptime": ago(page["uptime_s"]), "detail": work(page)}
    objection = view.objection(process["name"]) if process["role"] != "router" else None
    if not page["ready"] or objection:
        seen |= {"state": "not ready", "detail": page["reason"] or objection}
    seen["detail"] = ", ".join(filter(None, [seen["detail"], history(seen, by_hand)]))
    seen["down"] = [f"{p['name']}, {ago(p['since_s'])}: {p['reason']}" for p in page["peers"]
                    if p["state"] == "down"]
    return seen


def has_peers(processes: list[dict[str, Any]]) -> bool:
    """Whether a router that this mesh did not start serves it: its peers say that it is up."""
    pages = (page_of(one.get("admin_address"))[0] for one in processes
             if one["role"] != "router" and lives(one))
    return any(peer["role"] == "router" and peer["state"] == "up"
               for page in pages if page is not None for peer in page["peers"])


def history(seen: dict[str, Any], by_hand: bool) -> str:
    """What has become of the process that `up` started."""
    if by_hand:
        return "started by hand: ./mesh down leaves it"
    times = seen["restarts"]
    return f"restarted {times} time{'s' if times > 1 else ''}" if times else ""


def end_of(process: dict[str, Any]) -> str:
    """How a process ended and whether it comes back."""
    text = process.get("died") or "gone"
    if process.get("died_at"):
        text += f", {ago(time.time() - process['died_at'])} ago"
    if process.get("comes_back"):
        return f"{text}; starts again soon"
    if process.get("given_up"):
        text += "; restarts did not help, given up"
    return f"{text}; ./mesh restart {process['name']}"


def show(state: dict[str, Any], as_json: bool) -> int:
    """Prints the table once."""
    view = RouterView(state["processes"])
    rows = [look_at(process, view) for process in state["processes"]]
    for row in rows:
        if row["role"] == "router" and row["state"] == "dead" and has_peers(state["processes"]):
            row |= {"state": "ready", "detail": history(row, by_hand=True)}
    good = state["phase"] == "ready" and all(row["state"] == "ready" for row in rows)
    if as_json:
        print(json.dumps({"phase": state["phase"], "url": state.get("url"),
                          "model": state.get("model"), "ready": good, "processes": rows}, indent=1))
        return 0 if good else 1
    if state["phase"] == "ready":
        print(f"{state['url']}/v1   model {state['model']}\n")
    else:
        print("starting\n")
    print(f"{'process':<16} {'pid':>8}  {'state':<10} {'uptime':<8} detail")
    for row in rows:
        print(f"{row['name']:<16} {row['pid']:>8}  {row['state']:<10} {row['uptime']:<8} "
              f"{row['detail']}".rstrip())
        if row["role"] == "gateway" and row["grpc_address"]:
            print(f"{'':<17}gRPC (inference.v1) at {row['grpc_address']}")
        for peer in row["down"]:
            print(f"{'':<17}misses {peer}")
    return 0 if good else 1


def run(args: argparse.Namespace) -> int:
    """Shows the instance."""
    instance = Instance(args.name)
    while True:
        state = instance.state()
        if state is None:
            print(f"mesh: {args.name} is not running; start it with: ./mesh up{instance.option}",
                  file=sys.stderr)
            return NOT_RUNNING
        if args.watch:
            print("\033[H\033[2J", end="")
        code = show(state, args.json)
        sys.stdout.flush()
        if not args.watch:
            return code
        time.sleep(1)
