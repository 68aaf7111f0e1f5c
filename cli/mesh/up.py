"""`./mesh up` and `./mesh down`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from mesh.build import PROCESSES, ROOT, binary, build
from mesh.errors import MeshError
from mesh.instance import Instance, same_process
from mesh.supervisor import Supervisor

DEFAULT_PORT = 8080


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares up and down."""
    up = commands.add_parser(
        "up", help="build and start a mesh",
        description="Builds what is missing and starts router, engram store, expert pools, attention "
                    "workers and gateway, each a process of its own, under one supervisor.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    up.add_argument("--model", type=Path, metavar="DIR",
                    help="Hugging Face model directory; without it a random tiny-v3 is made once")
    up.add_argument("--served-model-name", metavar="NAME", help="model id; else the directory's name")
    up.add_argument("--experts", type=_positive, default=2, metavar="N", help="expert pools")
    up.add_argument("--expert-replicas", type=_positive, default=1, metavar="R",
                    help="expert workers per pool")
    up.add_argument("--slices", metavar="S;S", help='slices by hand, e.g. "0-15;16-31"')
    up.add_argument("--attention", type=_positive, default=1, metavar="N", help="attention workers")
    up.add_argument("--profile", default="bf16", help="arithmetic: bf16 or exact-f32")
    up.add_argument("--threads", type=_positive, default=1, help="compute threads of each worker")
    up.add_argument("--port", type=int, default=DEFAULT_PORT,
                    help="HTTP port; the next free one if taken; 0 = any")
    up.add_argument("--debug-api", action="store_true", help="allow inference.v1's debug block")
    up.add_argument("--detach", action="store_true", help="run in the background")
    up.add_argument("--timeout", type=float, default=120, metavar="S", help="seconds until all ready")
    up.add_argument("--name", default="default", help="name of this instance")
    up.add_argument("--no-build", action="store_true", help="use the programs as they are")
    up.set_defaults(run=run_up)
    down = commands.add_parser("down", help="stop a mesh",
                               description="Stops every process of an instance; fine if none runs.")
    down.add_argument("--name", default="default", help="name of the instance")
    down.set_defaults(run=run_down)


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError("must be between 1 and 1024")
    return value


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(text, file=sys.stderr, flush=True)


def default_model() -> Path:
    """build/models/tiny-v3, made on first use."""
    model = ROOT / "build" / "models" / "tiny-v3"
    if not (model / "config.json").exists():
        say("mesh: making the random model tiny-v3 under build/models/ (once)")
        model.parent.mkdir(parents=True, exist_ok=True)
        run_tool(["model", "init", "--preset", "tiny-v3", "--seed", "1", "--out", str(model)])
    return model


def run_tool(args: list[str]) -> str:
    """Runs the `expertmesh` command; its error line becomes ours."""
    done = subprocess.run([str(binary("expertmesh")), *args], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise MeshError(done.stderr.strip().removeprefix("expertmesh: ") or "expertmesh failed")
    return done.stdout


def free_port(wanted: int) -> int:
    """The wanted port, or the next free one, said aloud; 0 stays 0."""
    if wanted == 0:
        return 0
    for port in range(wanted, min(wanted + 100, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port != wanted:
            say(f"mesh: port {wanted} is taken, using {port}")
        return port
    raise MeshError(f"no free port from {wanted} on; give --port")


def launch(supervisor: Supervisor, args: argparse.Namespace, model: Path, slices: list[str]) -> None:
    """Starts every process; each finds the others through the router."""
    folder = supervisor.instance.sockets

    def listen(name: str) -> str:
        return f"unix:{folder}/{name}.sock"

    router = ["--router", listen("router")]
    served = ["--model", str(model)]
    if args.served_model_name:
        served += ["--served-model-name", args.served_model_name]
    worker = [*served, "--profile", args.profile, "--threads", str(args.threads), *router]
    supervisor.start("router", "router", [str(binary(PROCESSES[0])), "--listen", listen("router")])
    supervisor.start("engram", "engram-store", [
        str(binary(PROCESSES[1])), "--listen", listen("engram"), "--data",
        str(supervisor.instance.logs / "engram"), *served, *router])
    for pool, text in enumerate(slices):
        for replica in range(args.expert_replicas):
            name = f"expert-{pool}-{replica}"
            supervisor.start(name, "expert-worker", [
                str(binary(PROCESSES[2])), "--listen", listen(name), "--slice", text, *worker])
    for index in range(args.attention):
        name = f"attention-{index}"
        debug = ["--debug-api"] if args.debug_api else []
        supervisor.start(name, "attention-worker", [
            str(binary(PROCESSES[3])), "--listen", listen(name), *worker, *debug])
    supervisor.start("gateway", "gateway", [
        str(binary(PROCESSES[4])), "--listen", listen("gateway"), "--http",
        f"127.0.0.1:{free_port(args.port)}", *served, *router])


def run_up(args: argparse.Namespace) -> int:
    """Builds, starts, waits, prints how to talk to it."""
    instance = Instance(args.name)
    if instance.state():
        raise MeshError(f"instance {args.name} runs already; stop it with: ./mesh down")
    if not args.no_build:
        build((*PROCESSES, "expertmesh"))
    model = (args.model or default_model()).resolve()
    if not (model / "config.json").exists():
        raise MeshError(f"{model} has no config.json; give a Hugging Face model directory")
    # Checks the directory once, in front, and writes the revision's cache before five readers want it.
    shown = json.loads(run_tool(["model", "show", "--json", str(model)]))
    if args.slices:
        slices = args.slices.split(";")
    else:
        slices = run_tool(["model", "slices", str(model), "--pools", str(args.experts)]).split()
    reap_leftovers(instance)
    ready_in, ready_out = os.pipe()
    if args.detach and os.fork() > 0:
        return wait_for_daemon(ready_in, ready_out)
    if args.detach:
        os.setsid()
    os.close(ready_in)
    return supervise(args, instance, model, slices, shown, ready_out)


def wait_for_daemon(ready_in: int, ready_out: int) -> int:
    """The parent of --detach: waits for the verdict of the supervisor."""
    os.close(ready_out)
    with os.fdopen(ready_in) as verdict:
        return 0 if verdict.read() == "ready" else 1


def supervise(args: argparse.Namespace, instance: Instance, model: Path, slices: list[str],
              shown: dict, ready_out: int) -> int:
    """Runs until a stop signal comes."""
    stop_in, stop_out = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.write(stop_out, b"x"))
    supervisor = Supervisor(instance, say)
    say(f"mesh: starting {args.name}: {len(slices)} expert pools ({' '.join(slices)}) "
        f"x {args.expert_replicas}, {args.attention} attention worker(s)")
    try:
        launch(supervisor, args, model, slices)
        supervisor.wait_ready(args.timeout)
        gateway = supervisor.children[-1].announced()
        model_id = args.served_model_name or model.name
        supervisor.info = {"url": f"http://{gateway['http_address']}", "model": model_id,
                           "revision": shown.get("revision", "")}
        supervisor.write_state()
        greet(supervisor.info["url"], model_id, args)
        os.write(ready_out, b"ready")
        os.close(ready_out)
        if args.detach:
            detach_output(instance)
        supervisor.watch(stop_in)
        say("mesh: stopping")
    except MeshError as error:
        print(f"mesh: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        supervisor.stop()
    return 0


def detach_output(instance: Instance) -> None:
    """From here on the supervisor speaks into its own log."""
    log = os.open(instance.logs / "supervisor.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def greet(url: str, model: str, args: argparse.Namespace) -> None:
    """How to use what now runs."""
    name = "" if args.name == "default" else f" --name {args.name}"
    body = json.dumps({"model": model, "stream": True, "max_tokens": 32,
                       "messages": [{"role": "user", "content": "Explain MoE architecture"}]})
    print(f"\nExpertMesh is ready: {url}/v1\n\n"
          f"  curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n\n"
          f"  ./mesh chat{name} \"Explain MoE architecture\"\n"
          f"  ./mesh status{name}      ./mesh down{name}\n", flush=True)


def reap_leftovers(instance: Instance) -> None:
    """Ends processes that a killed supervisor left behind, and removes their files."""
    try:
        state = json.loads(instance.state_file.read_text())
    except (OSError, ValueError):
        state = {"processes": []}
    left = [p for p in state["processes"] if same_process(p["pid"], p["started"])]
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        for process in left:
            os.kill(process["pid"], number)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            left = [p for p in left if same_process(p["pid"], p["started"])]
            time.sleep(0.05)
        if not left:
            break
    shutil.rmtree(instance.sockets, ignore_errors=True)
    instance.state_file.unlink(missing_ok=True)


def run_down(args: argparse.Namespace) -> int:
    """Stops an instance and waits until nothing of it is left."""
    instance = Instance(args.name)
    state = instance.state()
    if state is None:
        reap_leftovers(instance)
        say(f"mesh: {args.name} is not running")
        return 0
    os.kill(state["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 30
    while same_process(state["pid"], state["started"]):
        if time.monotonic() > deadline:
            os.kill(state["pid"], signal.SIGKILL)
            break
        time.sleep(0.05)
    reap_leftovers_of(instance, state)
    say(f"mesh: {args.name} stopped")
    return 0


def reap_leftovers_of(instance: Instance, state: dict) -> None:
    """After the supervisor: whatever it could not end."""
    if any(same_process(p["pid"], p["started"]) for p in state["processes"]):
        instance.write_state(state)
    reap_leftovers(instance)
